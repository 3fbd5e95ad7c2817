// Segments the active image with a U-Net service, for Fiji: no curl, no temporary files.
//
// By hand: File > New > Script..., open this file, Run. From a command line, with ij.jar on the class path:
//
//   groovy -cp ij.jar segment_unet.groovy url=http://127.0.0.1:8000 "image=/data/my cells.tif" save=labels.tif
//
// url, image, output, model, threshold, min_area, min_score, channel, mirror, rois, save: as in segment_unet.ijm.

import groovy.json.JsonSlurper
import ij.IJ
import ij.ImagePlus
import ij.Prefs
import ij.gui.GenericDialog
import ij.gui.Roi
import ij.io.FileSaver
import ij.io.Opener
import ij.io.RoiDecoder
import ij.measure.Calibration
import ij.plugin.LutLoader
import ij.plugin.frame.RoiManager
import ij.process.LUT
import java.util.zip.ZipInputStream

class Refused extends Exception {
    Refused(String message) { super(message) }
}

/** Send a TIFF, return the bytes of the answer; waits as long as a busy service asks, for a minute at most. */
byte[] ask(String url, Map<String, String> query, byte[] tiff) {
    String asked = query.findAll { it.value }.collect { "${it.key}=${URLEncoder.encode(it.value, 'UTF-8')}" }.join('&')
    for (int waited = 0; ; ) {
        HttpURLConnection connection = (HttpURLConnection) new URL("${url}/segment?${asked}").openConnection()
        connection.requestMethod = 'POST'
        connection.doOutput = true
        connection.setRequestProperty('Content-Type', 'image/tiff')
        connection.fixedLengthStreamingMode = tiff.length
        int status
        try {
            connection.outputStream.withCloseable { it.write(tiff) }
            status = connection.responseCode
        } catch (ConnectException | UnknownHostException error) {
            throw new Refused("No service answers at ${url}: ${error.message}")
        }
        if (status == 200) {
            return connection.inputStream.bytes
        }
        String body = connection.errorStream?.getText('UTF-8') ?: ''
        String pause = connection.getHeaderField('Retry-After')
        if (pause?.isInteger() && waited + pause.toInteger() <= 60) {
            waited += pause.toInteger()
            sleep(1000L * pause.toInteger())
            continue
        }
        boolean problem = connection.contentType?.startsWith('application/problem+json')
        throw new Refused(problem ? new JsonSlurper().parseText(body).detail : "The service answers ${status}: ${body}")
    }
}

List<Roi> roisIn(byte[] zip) {
    List<Roi> found = []
    new ZipInputStream(new ByteArrayInputStream(zip)).withCloseable { archive ->
        for (def entry = archive.nextEntry; entry != null; entry = archive.nextEntry) {
            ByteArrayOutputStream content = new ByteArrayOutputStream()
            content << archive
            found << new RoiDecoder(content.toByteArray(), entry.name - '.roi').roi
        }
    }
    found
}

Map<String, String> defaults() {
    [url: Prefs.get('unet.url', 'http://127.0.0.1:8000'), output: 'labels', model: '', threshold: '', min_area: '',
     min_score: '', channel: '', mirror: '', rois: 'false', image: '', save: '']
}

Map<String, String> fromDialog(Map<String, String> shown) {
    GenericDialog dialog = new GenericDialog('Segment with U-Net')
    dialog.addStringField('Service', shown.url, 30)
    dialog.addStringField('Model (empty: the default)', shown.model, 30)
    dialog.addChoice('Result', ['labels', 'mask', 'probabilities'] as String[], shown.output)
    dialog.addStringField("Threshold (empty: the model's)", '', 8)
    dialog.addStringField("Smallest object, px (empty: the model's)", '', 8)
    dialog.addStringField("Least score of an object, 0 to 1 (empty: the model's)", '', 8)
    dialog.addStringField('Channel, from 0 (empty: all)', '', 8)
    dialog.addCheckbox('Outlines into the ROI Manager', false)
    dialog.addCheckbox('Mean of mirrored views (eight times the time)', false)
    dialog.showDialog()
    if (dialog.wasCanceled()) {
        return null
    }
    Map<String, String> chosen = shown + [url: dialog.nextString, model: dialog.nextString, output: dialog.nextChoice,
        threshold: dialog.nextString, min_area: dialog.nextString, min_score: dialog.nextString, channel: dialog.nextString,
        rois: dialog.nextBoolean.toString(), mirror: dialog.nextBoolean.toString()]
    Prefs.set('unet.url', chosen.url)
    chosen
}

ImagePlus segment(ImagePlus image, Map<String, String> options) {
    String url = options.url.replaceAll('/+$', '')
    Map<String, String> query = options.subMap(['output', 'model', 'threshold', 'min_area', 'min_score', 'channel', 'mirror'])
    byte[] tiff = new FileSaver(image).serialize()
    byte[] answer = ask(url, query + [format: 'tiff'], tiff)
    String title = image.title.replaceAll(/\.[^.]*$/, '') + '-' + options.output
    ImagePlus result = new Opener().deserialize(answer)
    result.title = title
    // the service knows micrometres; this keeps other units, the depth and the time too
    Calibration scale = image.calibration.copy()
    scale.disableDensityCalibration() // of signed 16 bit images, whose values ImageJ shifts
    result.calibration = scale
    if (options.output == 'labels') {
        result.lut = new LUT(LutLoader.getLut('3-3-2 RGB'), 0, 255) // neighbours in number differ in colour
    }
    if (options.rois == 'true') {
        byte[] zip = ask(url, query + [format: 'rois'], tiff)
        RoiManager manager = RoiManager.roiManager
        roisIn(zip).each { manager.addRoi(it) }
        if (options.save) {
            new File(options.save.replaceAll(/\.[^.\/\\]*$/, '') + '.zip').bytes = zip
        }
    }
    result
}

boolean unattended = binding.hasVariable('args') && args.length > 0
Map<String, String> options = defaults()
try {
    if (unattended) {
        Map<String, String> given = args.collectEntries { it.split('=', 2).toList() }
        List<String> unknown = (given.keySet() - options.keySet()).toList()
        if (unknown) {
            throw new Refused("There is no option ${unknown.join(', ')}; there are ${options.keySet().join(', ')}")
        }
        options += given
    }
    ImagePlus image = options.image ? IJ.openImage(options.image) : IJ.image
    if (!unattended) {
        options = fromDialog(options)
    }
    if (image != null && options != null) {
        ImagePlus result = segment(image, options)
        if (options.save) {
            new FileSaver(result).saveAsTiff(options.save)
            if (unattended) {
                System.exit(0) // the ROI Manager's window would keep the program alive
            }
        } else {
            result.show()
        }
    }
} catch (Refused refusal) {
    IJ.error('U-Net', "The U-Net service gives no result.\n${refusal.message}")
    if (unattended) {
        System.exit(1)
    }
}
