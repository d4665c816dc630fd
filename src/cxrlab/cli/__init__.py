"""The command line: Hydra configs composed and checked, messages, the terminal."""
