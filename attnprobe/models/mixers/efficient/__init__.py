"""The efficient attention of the Long Range Arena's table (Tay et al. 2021), each cheaper than length x length."""
