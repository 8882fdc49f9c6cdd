"""What every command shows: output, progress, tables, mistakes of usage."""
