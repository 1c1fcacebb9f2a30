"""The grammars of the texts that receivers of mail look for in DNS: one file for each. Pure."""
