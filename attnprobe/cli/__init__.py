"""The command line: everything that prints, and nothing that computes."""

from attnprobe.cli.app import main as main
