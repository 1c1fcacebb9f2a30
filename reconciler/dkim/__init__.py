"""DKIM keys: their records, their rotation, and how directory, server and name servers stand to each other."""
