"""Amazon's own agent and session-manager-plugin, where they are: against ours, and with each other."""
