"""DNS as values: names, the table of types, texts, records, and what name servers show of them."""
