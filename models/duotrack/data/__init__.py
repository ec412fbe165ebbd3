"""Where training and evaluation frames come from: dataset readers, sampling, augmentation and the synthetic scenes."""
