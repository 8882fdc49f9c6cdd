"""What a study found, written and drawn: tables in Markdown and LaTeX, tidy rows, figures."""
