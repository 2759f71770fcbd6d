"""The commands: each file is one, with `main(arguments)`, which returns the exit code."""
