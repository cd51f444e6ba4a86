"""The commands of `m2c`. Each imports what it needs when it runs, so that `m2c --help` does not wait for all of it."""
