"""The kinds of a server up to 0.15, a file each, as `target.KINDS` lists them; `kind` is what one says of itself."""
