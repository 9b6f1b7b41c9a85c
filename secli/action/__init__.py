"""L_s, the scale action: on images, on feature maps, and its generator."""
