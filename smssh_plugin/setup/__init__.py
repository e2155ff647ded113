"""What an AWS account needs, as policies and settings in each form, and what is to be removed from it again."""
