"""Models of Hugging Face and a person's texts or images, opened as subjects of probes."""
