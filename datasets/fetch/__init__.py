"""Public sources on the network: what they are, what their licence asks, and how they come here whole."""
