// Segments the active image with a U-Net service, for Fiji: no curl, no temporary files.
//
// By hand: File > New > Script..., open this file, Run. From a command line, with ij.jar on the class path:
//
//   groovy -cp ij.jar segment_unet.groovy url=http://127.0.0.1:8000 "image=/data/my cells.tif" save=labels.tif
//
// url, image, output, model, threshold, min_area, min_score, link, channel, axes, mirror, scale, pixel_size, timeout,
// respond_async, rois, save: as in segment_unet.ijm.

import groovy.json.JsonSlurper
import groovy.transform.Field
import ij.IJ
import ij.ImagePlus
import ij.Prefs
import ij.WindowManager
import ij.gui.GenericDialog
import ij.gui.Roi
import ij.io.FileSaver
import ij.io.Opener
import ij.io.RoiDecoder
import ij.measure.Calibration
import ij.plugin.LutLoader
import ij.plugin.frame.RoiManager
import ij.process.LUT
import java.awt.GraphicsEnvironment
import java.util.zip.ZipInputStream
import javax.net.ssl.SSLException

// an answer is waited for twice as long as the service takes at most unless told otherwise (UNET_DEADLINE_S, 300)
@Field final int SILENCE_S = 600
@Field final int PAUSES_S = 120 // of a busy service that says when to ask again, together
@Field final int PATIENCE_S = 600 // from the first time it is asked to the last
@Field final String DEFAULT_MODEL = "the service's default"

class Refused extends Exception {
    Refused(String message) { super(message) }
}

/** There is no connection. */
class Away extends Refused {
    Away(String message) { super(message) }
}

/** A job will have no result, and another replica may be luckier. */
class Lost extends Refused {
    Lost(String message) { super(message) }
}

/** An address without user and password, as it may be shown. */
String shown(String url) {
    url.replaceAll('^([a-zA-Z]+://)?.*@', '$1')
}

/** What stands before the @ of an address, as a header has it; null where there is none. */
String authorization(String url) {
    String given = (url =~ '^[a-zA-Z]+://(.*)@').with { it.find() ? it.group(1) : null }
    if (given == null) {
        return null
    }
    try {
        // a + is a plus here, unlike in forms
        String decoded = URLDecoder.decode(given.replace('+', '%2B'), 'UTF-8')
        return 'Basic ' + (decoded.contains(':') ? decoded : decoded + ':').getBytes('UTF-8').encodeBase64()
    } catch (IllegalArgumentException error) {
        throw new Refused("In the user name or password for ${shown(url)} a % stands alone; write it as %25")
    }
}

/** An open connection, or the reason why there is none. */
HttpURLConnection connected(String url, String path, int waitMs, Closure prepared) {
    if (!(url ==~ '(?i)https?://.*')) {
        throw new Refused("url is '${shown(url)}', it should begin with http:// or https://, as " +
            'http://127.0.0.1:8000 does')
    }
    String authorization = authorization(url)
    try {
        HttpURLConnection connection = (HttpURLConnection) new URL(shown(url) + path).openConnection()
        if (authorization != null) {
            connection.setRequestProperty('Authorization', authorization)
        }
        connection.instanceFollowRedirects = false // a body that is streamed cannot be sent twice
        connection.connectTimeout = 10_000
        connection.readTimeout = waitMs
        prepared(connection)
        connection.connect()
        return connection
    } catch (SSLException error) {
        throw new Refused("No service answers at ${shown(url)}: ${error.message}; " +
            'is it https:// where it should be http://?')
    } catch (IOException | IllegalArgumentException error) {
        throw new Away("No service answers at ${shown(url)}: ${error.message}; " +
            'is it running, and is the address right?')
    }
}

/** The body of an answer; Java itself says nothing where one ends too early, and keeps that of a 401 to itself. */
byte[] bodyOf(HttpURLConnection connection) {
    int status = connection.responseCode
    InputStream stream = status < 400 ? connection.inputStream : connection.errorStream
    byte[] body = stream?.bytes ?: new byte[0]
    if (status != 401 && body.length < connection.contentLengthLong) {
        throw new EOFException("${body.length} of ${connection.contentLengthLong} bytes came")
    }
    body
}

/** What a refusal says to people. */
String reason(String url, HttpURLConnection connection, byte[] body) {
    int status = connection.responseCode
    String text = new String(body, 'UTF-8')
    if (body.length > 0 && connection.contentType?.startsWith('application/problem+json')) {
        return new JsonSlurper().parseText(text).detail
    }
    if (status == 401) {
        return authorization(url) == null ?
            "${shown(url)} wants user and password, or a key; put them into the address, as in https://user:key@host " +
            '(%40 for an @ in them); the operator of the service has them' :
            "${shown(url)} does not know the user and password, or the key, in the address; compare them with what the " +
            'operator of the service gave you (%40 for an @, %3A for a : in the user name)'
    }
    if (status == 403) {
        return "${shown(url)} knows who asks, and does not allow it (403); ask the operator of the service for access"
    }
    String place = connection.getHeaderField('Location')
    status in 300..399 && place ? "${shown(url)} has moved: it answers ${status} and names ${shown(place)}; give the " +
        'address there' : "The service answers ${status}: ${text}"
}

/** Names of the models that the service has; none where it does not say so at once. */
List<String> modelsAt(String url) {
    try {
        HttpURLConnection connection = connected(url.replaceAll('/+$', ''), '/models', 3000) { it.connectTimeout = 2000 }
        byte[] body = bodyOf(connection)
        return connection.responseCode == 200 ?
            new JsonSlurper().parseText(new String(body, 'UTF-8')).models.collect { "${it.name}@${it.version}".toString() } : []
    } catch (Refused | IOException | RuntimeException error) {
        return [] // the dialog, in which the address may be put right, is more use than a message
    }
}

/** Send a TIFF, return the bytes of the result; that of a job is asked for until it is there. */
byte[] ask(String url, Map<String, String> query, byte[] tiff) {
    String asked = query.findAll { it.value }.collect { "${it.key}=${URLEncoder.encode(it.value, 'UTF-8')}" }.join('&')
    for (int times = 1; ; times++) {
        Map<String, Object> answer = exchange(url, "/segment?${asked}", tiff)
        if (answer.status == 200) {
            return answer.body
        }
        String job = new JsonSlurper().parseText(new String((byte[]) answer.body, 'UTF-8')).id
        try {
            while ((answer = exchange(url, "/jobs/${job}/result?wait=50", null)).status == 409) { // not done
                sleep(1000)
            }
            return answer.body
        } catch (Lost lost) {
            if (times == 3) {
                throw lost
            }
        }
    }
}

/**
 * Send a TIFF, or ask where it is null; returns status (200, 202, 409) and bytes of the answer. Asks again as long as a busy
 * service says when, and where an answer broke off, three times at most.
 */
Map<String, Object> exchange(String url, String path, byte[] tiff) {
    long begun = System.currentTimeMillis()
    double waited = 0
    int away = 0
    for (int brokeOff = 0; ; ) {
        HttpURLConnection connection
        try {
            connection = connected(url, path, 1000 * SILENCE_S) {
                if (tiff != null) {
                    it.requestMethod = 'POST'
                    it.doOutput = true
                    it.setRequestProperty('Content-Type', 'image/tiff')
                    it.fixedLengthStreamingMode = tiff.length
                }
            }
        } catch (Away refused) {
            double pause = 0.25 * 2**(++away)
            waited += pause
            boolean hasAnswered = tiff == null || brokeOff > 0 || waited > pause // it may be about to be replaced
            if (!hasAnswered || waited > PAUSES_S || System.currentTimeMillis() - begun > 1000L * PATIENCE_S) {
                throw refused
            }
            sleep((long) (1000 * pause))
            continue
        }
        byte[] body
        try {
            if (tiff != null) {
                connection.outputStream.withCloseable { it.write(tiff) }
            }
            body = bodyOf(connection)
        } catch (SocketTimeoutException error) {
            throw new Refused("${shown(url)} has not answered within ${SILENCE_S} s; send a smaller image, or raise SILENCE_S in " +
                'this script where the service may take longer (its UNET_DEADLINE_S)')
        } catch (IOException error) {
            if (++brokeOff > 3) {
                throw new Refused("The answer of ${shown(url)} broke off ${brokeOff} times: ${error.message}; " +
                    "see the service's log, and try again")
            }
            sleep(250L << brokeOff) // half a second, then twice as long each time
            continue
        }
        int status = connection.responseCode
        if (status == 200 && connection.getHeaderField('X-UNet-Receipt') == null) {
            throw new Refused("${shown(url)} is another server, or a page to log in: give the address of the service itself")
        }
        if (status in [200, 202, 409]) {
            return [status: status, body: body]
        }
        if (tiff == null && new String(body, 'UTF-8') =~ '"type": ?"/problems/(job-lost|draining|unknown-job)"') {
            throw new Lost(reason(url, connection, body))
        }
        String named = connection.getHeaderField('Retry-After')
        if (named?.isInteger()) {
            int pause = Math.max(1, named.toInteger())
            waited += pause
            if (waited <= PAUSES_S && System.currentTimeMillis() - begun + 1000L * pause <= 1000L * PATIENCE_S) {
                sleep(1000L * pause)
                continue
            }
        }
        throw new Refused(reason(url, connection, body))
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
     min_score: '', link: '', channel: '', axes: '', mirror: '', scale: '', pixel_size: '', timeout: '',
     respond_async: '', rois: 'false', image: '', save: '']
}

Map<String, String> fromDialog(Map<String, String> options) {
    GenericDialog dialog = new GenericDialog('Segment with U-Net')
    dialog.addStringField('Service', options.url, 30)
    List<String> models = modelsAt(options.url)
    if (models) {
        dialog.addChoice('Model', [DEFAULT_MODEL, *models] as String[], DEFAULT_MODEL)
    } else {
        dialog.addStringField('Model (empty: the default)', options.model, 30)
    }
    dialog.addChoice('Result', ['labels', 'mask', 'probabilities'] as String[], options.output)
    dialog.addStringField("Threshold (empty: the model's)", '', 8)
    dialog.addStringField("Smallest object, px (empty: the model's)", '', 8)
    dialog.addStringField("Least score of an object, 0 to 1 (empty: the model's)", '', 8)
    dialog.addStringField("Overlap that makes objects of a stack's planes one, 0 to 1 (empty: none)", '', 8)
    dialog.addStringField('Channel, number from 0 or name (empty: all)', '', 8)
    dialog.addStringField('Scale for the model (empty: 1)', '', 8)
    dialog.addStringField('Pixel size, µm (empty: as in the image)', '', 8)
    dialog.addStringField("Seconds to wait at most (empty: the service's)", '', 8)
    dialog.addCheckbox('Outlines into the ROI Manager', false)
    dialog.addCheckbox('Mean of mirrored views (eight times the time)', false)
    dialog.addCheckbox('Job (for what takes longer than a proxy waits)', false)
    dialog.showDialog()
    if (dialog.wasCanceled()) {
        return null
    }
    Map<String, String> chosen = options + [url: dialog.nextString,
        model: models ? dialog.nextChoice - DEFAULT_MODEL : dialog.nextString, output: dialog.nextChoice,
        threshold: dialog.nextString, min_area: dialog.nextString, min_score: dialog.nextString, link: dialog.nextString,
        channel: dialog.nextString, scale: dialog.nextString, pixel_size: dialog.nextString, timeout: dialog.nextString,
        rois: dialog.nextBoolean.toString(), mirror: dialog.nextBoolean.toString(),
        respond_async: dialog.nextBoolean.toString()]
    Prefs.set('unet.url', chosen.url)
    chosen
}

/** The image as a TIFF, all of it even where a part is selected. */
byte[] tiffOf(ImagePlus image) {
    Roi selected = image.roi
    image.deleteRoi()
    // planes that are read when they are looked at have to be in memory
    byte[] tiff = new FileSaver(image.stack.isVirtual() ? image.duplicate() : image).serialize()
    if (selected != null) {
        image.setRoi(selected)
    }
    if (tiff == null) {
        throw new Refused("ImageJ cannot write '${image.title}' as a TIFF in memory; save it as a TIFF, open that, and try again")
    }
    tiff
}

ImagePlus segment(ImagePlus image, Map<String, String> options) {
    String url = options.url.replaceAll('/+$', '')
    Map<String, String> query = options.subMap(['output', 'model', 'threshold', 'min_area', 'min_score', 'link', 'channel',
        'axes', 'mirror', 'scale', 'pixel_size', 'timeout', 'respond_async'])
    byte[] tiff = tiffOf(image)
    byte[] answer = ask(url, query + [format: 'tiff'], tiff)
    String title = image.title.replaceAll(/\.[^.]*$/, '') + '-' + options.output
    ImagePlus result = new Opener().openTiff(new ByteArrayInputStream(answer), title)
    if (result == null) {
        File kept = File.createTempFile('unet-', "-${options.output}.tif")
        kept.bytes = answer
        throw new Refused("ImageJ cannot open the result: images above 16384 x 16384 pixels have one in tiles. " +
            "It is kept as ${kept}; open it with Bio-Formats or QuPath")
    }
    double interval = image.calibration.frameInterval
    if (!options.pixel_size) { // the service knows micrometres; this keeps other units and the depth too
        Calibration scale = image.calibration.copy()
        scale.disableDensityCalibration() // of signed 16 bit images, whose values ImageJ shifts
        result.calibration = scale
    }
    result.calibration.frameInterval = interval
    if (options.output == 'labels') {
        result.lut = new LUT(LutLoader.getLut('3-3-2 RGB'), 0, 255) // neighbours in number differ in colour
    }
    if (options.rois == 'true') {
        byte[] zip = ask(url, query + [format: 'rois'], tiff)
        if (!GraphicsEnvironment.headless) { // the manager is a window
            RoiManager manager = RoiManager.roiManager
            roisIn(zip).each { manager.addRoi(it) }
        }
        if (options.save) {
            new File(options.save.replaceAll(/\.[^.\/\\]*$/, '') + '.zip').bytes = zip
        }
    }
    result
}

ImagePlus opened(String path) {
    ImagePlus image = IJ.openImage(path)
    if (image == null) {
        throw new Refused("image is '${path}', which ImageJ cannot open; name an image file that exists and may be read")
    }
    image
}

/** Refuse what would be found out after the work else. */
void checked(Map<String, String> options) {
    if (!(options.rois in ['', 'true', 'false'])) {
        throw new Refused("rois is '${options.rois}', it should be true or false")
    }
    if (options.save && !new File(options.save).absoluteFile.parentFile?.isDirectory()) {
        throw new Refused("save is '${options.save}', which cannot be written; name a file in a folder that exists")
    }
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
        checked(options)
    }
    ImagePlus image = options.image ? opened(options.image) : WindowManager.currentImage
    if (image == null) {
        throw new Refused('No image is open. Open one, or name a file: image=/path/cells.tif')
    }
    if (!unattended) {
        options = fromDialog(options)
    }
    if (options != null) {
        ImagePlus result = segment(image, options)
        if (options.save) {
            if (!new FileSaver(result).saveAsTiff(options.save)) {
                throw new Refused("save is '${options.save}', which cannot be written; name a file in a folder that exists")
            }
            if (unattended) {
                System.exit(0) // the ROI Manager's window would keep the program alive
            }
        } else {
            result.show()
        }
    }
} catch (Refused | IOException failure) { // the latter where the outlines cannot be saved
    IJ.error('U-Net', "The U-Net service gives no result.\n${failure.message}")
    if (unattended) {
        System.exit(1)
    }
}
