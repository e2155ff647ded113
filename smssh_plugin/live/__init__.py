"""`smssh doctor --live`: what only a real account can show, tried there with the smallest calls, and removed again."""
