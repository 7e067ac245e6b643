"""The fusion pipeline: the face of one photo, in the pose, expression and light of another.

One module for each stage, in the order of work:

    landmarks   468 points on each face; refuses what would come out badly
    warp        the source's pixels, moved to where the target's points are
    hair        which of them are behind hair
    mask        which pixels belong to the face, and which of them are skin
    colour      the source's skin brought into the target's light, sharpness matched
    blend       both images joined band by band
    fuse        the stages put together
    refine      what a second fusion does better
    swapping    the same with a face that a model draws in place of one that is warped
    insightface the models that do

Images are RGB, uint8 or float32 in 0 to 1, of shape (height, width, 3). Points are
(x, y) or (x, y, z) in pixels, float32, origin top left. Native code runs here: for
programs in a runner's child only.
"""
