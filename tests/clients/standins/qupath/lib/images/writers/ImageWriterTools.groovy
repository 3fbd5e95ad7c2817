package qupath.lib.images.writers

import ij.CompositeImage
import ij.ImagePlus
import ij.ImageStack
import ij.io.FileSaver
import qupath.lib.regions.RegionRequest

/** Stand-in: like QuPath, it writes all channels of one plane by ImageJ; every nth pixel is taken where QuPath averages. */
class ImageWriterTools {
    static void writeImageRegion(Map server, RegionRequest region, String path) {
        ImagePlus image = server.image
        ImageStack planes = null
        int width = (int) Math.max(1, Math.round(region.width / region.downsample))
        int height = (int) Math.max(1, Math.round(region.height / region.downsample))
        (1..image.NChannels).each { channel ->
            def source = image.stack.getProcessor(image.getStackIndex(channel, region.z + 1, region.t + 1))
            def read = source.createProcessor(width, height)
            for (int y = 0; y < height; y++) {
                for (int x = 0; x < width; x++) {
                    read.set(x, y, source.get(region.x + (int) (x * region.downsample), region.y + (int) (y * region.downsample)))
                }
            }
            planes = planes ?: new ImageStack(width, height)
            planes.addSlice(read)
        }
        ImagePlus written = new ImagePlus('region', planes)
        written.setDimensions(image.NChannels, 1, 1)
        new File(path).bytes = new FileSaver(image.NChannels > 1 ? new CompositeImage(written) : written).serialize()
    }
}
