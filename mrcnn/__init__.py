"""Mask R-CNN for Keras 3, a drop-in for matterport/Mask_RCNN.

He et al., "Mask R-CNN", ICCV 2017 (arXiv 1703.06870), on a feature pyramid network
(Lin et al., CVPR 2017, arXiv 1612.03144).
"""

__version__ = "0.1.0"
