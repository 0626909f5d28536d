"""The commands as the command line names them; what each does is in `pipeline/commands/`."""
