"""Measures of one image, a module for each family; what is defined over a set keeps the counts that pool exactly.

==============  =======================================================================  ============================
module          measure                                                                  pooled over images as
==============  =======================================================================  ============================
``foreground``  IoU and Dice of the foreground's pixels, or of each class's              mean; IoU of all pixels too
``objects``     average precision TP / (TP + FP + FN) at IoU 0.5 to 0.9 (DSB 2018)       mean
``seg``         SEG of the Cell Tracking Challenge                                       mean over all objects
``isbi``        pixel, Rand and warping error of the ISBI 2012 EM challenge              counts of all, one threshold
``overlaps``    pixels that found and reference objects share, which the above rest on   -
``warping``     the homotopic warp that the warping error rests on                       -
==============  =======================================================================  ============================
"""
