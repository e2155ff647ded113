"""What the tag SMSSHState of a node says."""

STATES = {
    "ready": "ready",
    "running": "running",
    "held": "held",
    "retried": "running",
    "released": "released",
    "ended": "ended",
}
"""Event to the value of the tag SMSSHState."""
