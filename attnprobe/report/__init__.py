"""Figures and pages made from results; reads numbers, measures nothing."""
