"""The playground: a small market of made-up goods whose bundle is kept with the source, and a loop for it."""
