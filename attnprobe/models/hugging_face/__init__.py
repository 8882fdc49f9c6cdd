"""Models of Hugging Face's transformers (extra ``hf``): read from folders, hub ids or plain descriptions."""
