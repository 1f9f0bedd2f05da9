"""Readers, writers, simulated scenes, and conditioning: from anything recorded to what the network sees."""
