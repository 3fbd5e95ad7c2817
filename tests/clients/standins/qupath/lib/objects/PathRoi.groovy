package qupath.lib.objects

import java.awt.Rectangle
import java.awt.Shape

/** Stand-in: an area on a plane; its centre is that of its bounds. */
class PathRoi {
    Shape shape
    int z
    int t
    boolean area = true

    double getBoundsX() { shape.bounds2D.x }

    double getBoundsY() { shape.bounds2D.y }

    double getBoundsWidth() { shape.bounds2D.width }

    double getBoundsHeight() { shape.bounds2D.height }

    double getCentroidX() { shape.bounds2D.centerX }

    double getCentroidY() { shape.bounds2D.centerY }

    boolean contains(double x, double y) { shape.contains(x, y) }
}
