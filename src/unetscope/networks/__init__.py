"""The paper's U-Net; the skips and levels of any network, found and taken out; what a network costs."""
