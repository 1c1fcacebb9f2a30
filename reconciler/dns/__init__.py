"""DNS as values: the table of types, texts, records, and what name servers show of them."""
