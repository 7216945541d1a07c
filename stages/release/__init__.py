"""The release wing: what leaves this machine, and what comes back."""
