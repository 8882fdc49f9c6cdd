"""What is measured on a trained model, with error bars: (model, data) -> numbers. One module per probe."""
