"""What a team installs on its workers: its architectures, found by entry point."""
