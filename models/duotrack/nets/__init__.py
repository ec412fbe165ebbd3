"""The networks, in torch: used for training and export, never by the runtime."""
