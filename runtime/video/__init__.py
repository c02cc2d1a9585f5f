"""Read videos, cameras and sequences of pictures as windows of frames, each an input of a bundle (Hadidi, section 4.5)."""
