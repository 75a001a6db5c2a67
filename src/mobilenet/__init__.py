"""mobilenet: a folder of images in; a small, fast, proven vision model out."""
