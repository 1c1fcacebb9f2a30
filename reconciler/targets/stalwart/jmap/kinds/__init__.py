"""The kinds of a server from 0.16, a file each, as `target.KINDS` lists them; `kind` is what one says of itself."""
