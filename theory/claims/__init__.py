"""One module per claim: what it predicts beside what is measured, as rows. `theory.checks.CLAIMS` lists them."""
