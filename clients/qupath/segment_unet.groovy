// Segments the selected annotations with a U-Net service, or the whole image where none is selected; for QuPath 0.4 or later.
//
// By hand: Automate > Script editor, open this file, set the options below, Run. From a command line:
//
//   QuPath script --image slide.svs --save --args url=http://127.0.0.1:8000 --args downsample=2 segment_unet.groovy
//
// Objects become detections under their annotation, at their place and on its plane. Each region is sent with a margin, and
// those are kept whose centre lies within the annotation: of annotations side by side each object has one. Where one of them
// reaches beyond what was sent, the margin is doubled, four times at most. Detections that were right under the annotation
// before are replaced.

import groovy.transform.Field
import java.net.http.HttpClient
import java.net.http.HttpRequest
import java.net.http.HttpResponse
import java.nio.file.Path
import java.time.Duration
import javax.net.ssl.SSLException
import qupath.lib.images.writers.ImageWriterTools
import qupath.lib.io.GsonTools
import qupath.lib.io.PathIO
import qupath.lib.objects.PathObjectTools
import qupath.lib.regions.ImagePlane
import qupath.lib.regions.RegionRequest
import qupath.lib.scripting.QP

@Field Map<String, String> options = [
    url       : 'http://127.0.0.1:8000', // https://user:key@host where the service wants them; %40 for an @ in them
    model     : '', // name or name@version; empty: the service's default
    downsample: '1', // pixels of the image for one pixel that is sent; bit depth and channels stay as they are
    margin    : '32', // pixels that are sent around the annotation at least, where the image has them
    channel   : '', // number from 0 or name, for a model of one channel; empty: all
    threshold : '', // empty, here and below: the model's own
    min_area  : '', // pixels that are sent
    min_score : '',
    mirror    : '', // true: mean of eight mirrored views, eight times the time
    timeout   : '', // seconds until the answer is of no use any more
]

// an answer is waited for twice as long as the service takes at most unless told otherwise (UNET_DEADLINE_S, 300)
@Field final int SILENCE_S = 600
@Field final int PAUSES_S = 120 // of a busy service that says when to ask again, together
@Field final int PATIENCE_S = 600 // from the first time it is asked to the last
@Field final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1)
    .connectTimeout(Duration.ofSeconds(10)).build()

class Refused extends RuntimeException {
    Refused(String message) { super('The U-Net service gives no result. ' + message) }
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

double number(String name, double least) {
    String given = options[name]
    double value = given.isNumber() ? given.toDouble() : Double.NaN
    if (!(value >= least)) {
        throw new Refused("${name} is '${given}', it should be a number from ${least}")
    }
    value
}

HttpRequest request(Map<String, String> query, Path tiff) {
    String url = options.url.replaceAll('/+$', '')
    if (!(url ==~ '(?i)https?://.*')) {
        throw new Refused("url is '${shown(url)}', it should begin with http:// or https://, as http://127.0.0.1:8000 does")
    }
    String authorization = authorization(url)
    String asked = query.findAll { it.value }.collect { "${it.key}=${URLEncoder.encode(it.value, 'UTF-8')}" }.join('&')
    try {
        HttpRequest.Builder builder = HttpRequest.newBuilder(URI.create("${shown(url)}/segment?${asked}"))
            .timeout(Duration.ofSeconds(SILENCE_S)).header('Content-Type', 'image/tiff')
            .POST(HttpRequest.BodyPublishers.ofFile(tiff))
        return (authorization == null ? builder : builder.header('Authorization', authorization)).build()
    } catch (IllegalArgumentException error) {
        throw new Refused("url is '${shown(url)}', which is no address: ${error.message}")
    }
}

/** What a refusal says to people. */
String reason(HttpResponse<byte[]> answer) {
    String url = shown(options.url)
    String text = new String(answer.body(), 'UTF-8')
    if (answer.headers().firstValue('Content-Type').orElse('').startsWith('application/problem+json')) {
        return GsonTools.getInstance().fromJson(text, Map).detail
    }
    switch (answer.statusCode()) {
        case 401:
            return authorization(options.url) == null ?
                "${url} wants user and password, or a key; put them into the address, as in https://user:key@host " +
                '(%40 for an @ in them); the operator of the service has them' :
                "${url} does not know the user and password, or the key, in the address; compare them with what the " +
                'operator of the service gave you'
        case 403:
            return "${url} knows who asks, and does not allow it (403); ask the operator of the service for access"
        case 300..399:
            String place = answer.headers().firstValue('Location').orElse('no other place')
            return "${url} has moved: it answers ${answer.statusCode()} and names ${shown(place)}; give the address there"
        default:
            return "The service answers ${answer.statusCode()}: ${text}"
    }
}

/**
 * Send a TIFF, return the bytes of the answer; asks again as long as a busy service says when, and where an answer broke
 * off, three times at most.
 */
byte[] ask(Map<String, String> query, Path tiff) {
    String url = shown(options.url)
    HttpRequest request = request(query, tiff)
    long begun = System.currentTimeMillis()
    int waited = 0
    for (int brokeOff = 0; ; ) {
        HttpResponse<byte[]> answer
        try {
            answer = client.send(request, HttpResponse.BodyHandlers.ofByteArray())
        } catch (ConnectException | SSLException | java.net.http.HttpConnectTimeoutException error) {
            throw new Refused("No service answers at ${url}: ${error.message ?: 'the connection is refused'}; " +
                'is it running, and is the address right?')
        } catch (java.net.http.HttpTimeoutException error) {
            throw new Refused("${url} has not answered within ${SILENCE_S} s; raise downsample or draw smaller " +
                'annotations, or raise SILENCE_S in this script where the service may take longer (its UNET_DEADLINE_S)')
        } catch (IOException error) {
            if (++brokeOff > 3) {
                throw new Refused("The answer of ${url} broke off ${brokeOff} times: ${error.message}; " +
                    "see the service's log, and try again")
            }
            sleep(250L << brokeOff) // half a second, then twice as long each time
            continue
        }
        if (answer.statusCode() == 200) {
            if (answer.headers().firstValue('X-UNet-Receipt').empty) {
                throw new Refused("${url} is another server, or a page to log in: give the address of the service itself")
            }
            return answer.body()
        }
        String named = answer.headers().firstValue('Retry-After').orElse('')
        if (named.isInteger()) {
            int pause = Math.max(1, named.toInteger())
            waited += pause
            if (waited <= PAUSES_S && System.currentTimeMillis() - begun + 1000L * pause <= 1000L * PATIENCE_S) {
                sleep(1000L * pause)
                continue
            }
        }
        throw new Refused(reason(answer))
    }
}

/** What is read for a ROI: its bounds with a margin, within the image. */
RegionRequest regionAround(def server, def roi, double downsample, int margin) {
    int around = (int) Math.ceil(margin * downsample)
    int left = Math.max(0, (int) Math.floor(roi.boundsX) - around)
    int top = Math.max(0, (int) Math.floor(roi.boundsY) - around)
    int right = Math.min(server.width, (int) Math.ceil(roi.boundsX + roi.boundsWidth) + around)
    int bottom = Math.min(server.height, (int) Math.ceil(roi.boundsY + roi.boundsHeight) + around)
    if (right <= left || bottom <= top) {
        throw new Refused("An annotation lies outside the image of ${server.width} x ${server.height} px; delete or move it")
    }
    RegionRequest.createInstance(server.path, downsample, left, top, right - left, bottom - top, roi.z, roi.t)
}

/** The detections that the service finds in a region, in pixels of the whole image, on the region's plane. */
List detectionsIn(def server, RegionRequest region) {
    double pixels = (region.width / region.downsample) * (region.height / region.downsample)
    if (pixels > Integer.MAX_VALUE) {
        throw new Refused(String.format('A region has %.0f pixels to send, a TIFF of QuPath takes %d; raise downsample, or ' +
            'draw smaller annotations', pixels, Integer.MAX_VALUE))
    }
    Map<String, String> query = options.findAll { !(it.key in ['url', 'margin']) } +
        [output: 'labels', format: 'geojson', origin: "${region.y},${region.x}".toString()]
    File tiff = File.createTempFile('unet-', '.tif')
    byte[] answer
    try {
        ImageWriterTools.writeImageRegion(server, region, tiff.path)
        answer = ask(query, tiff.toPath())
    } finally {
        tiff.delete()
    }
    List found = PathIO.readObjectsFromGeoJSON(new ByteArrayInputStream(answer))
    if (region.z == 0 && region.t == 0) {
        return found
    }
    ImagePlane plane = ImagePlane.getPlane(region.z, region.t)
    found.collect { PathObjectTools.updatePlane(it, plane, true, false) }
}

/** Whether an object ends where the region does, while the image goes on: it may be larger, and its centre elsewhere. */
boolean isCut(def server, RegionRequest region, def roi) {
    double pixel = region.downsample
    (region.x > 0 && roi.boundsX < region.x + pixel) || (region.y > 0 && roi.boundsY < region.y + pixel) ||
        (region.x + region.width < server.width && roi.boundsX + roi.boundsWidth > region.x + region.width - pixel) ||
        (region.y + region.height < server.height && roi.boundsY + roi.boundsHeight > region.y + region.height - pixel)
}

/** Put the objects of an annotation under it, whole. */
void segmentAnnotation(def server, def annotation, double downsample, int margin) {
    for (int around = margin; ; around = Math.max(2 * around, 32)) {
        RegionRequest region = regionAround(server, annotation.ROI, downsample, around)
        List inside = detectionsIn(server, region).findAll { annotation.ROI.contains(it.ROI.centroidX, it.ROI.centroidY) }
        int cut = inside.count { isCut(server, region, it.ROI) }
        if (cut == 0 || around >= 16 * Math.max(margin, 32)) {
            replaceDetections(annotation, inside, region)
            if (cut > 0) {
                println "${annotation}: ${counted(cut)} cut, with a margin of ${around} px; raise margin"
            }
            return
        }
    }
}

/** Put detections under their parent, in place of those that it had on the same plane. */
void replaceDetections(def parent, List found, RegionRequest region) {
    List before = parent.childObjects.findAll { it.isDetection() && it.ROI.z == region.z && it.ROI.t == region.t }
    parent.removeChildObjects(before)
    parent.addChildObjects(found)
    println "${parent}: ${counted(found.size())}"
}

String counted(int objects) {
    objects == 1 ? '1 object' : "${objects} objects"
}

if (binding.hasVariable('args')) {
    Map<String, String> given = args.collectEntries { it.split('=', 2).toList() }
    List<String> unknown = (given.keySet() - options.keySet()).toList()
    if (unknown) {
        throw new Refused("There is no option ${unknown.join(', ')}; there are ${options.keySet().join(', ')}")
    }
    options += given
}
double downsample = number('downsample', 0.01)
int margin = (int) number('margin', 0)
def server = QP.getCurrentServer()
if (server == null) {
    throw new Refused('No image is open; open one')
}
List annotations = QP.getSelectedObjects().findAll { it.isAnnotation() && it.hasROI() && it.ROI.isArea() }
try {
    annotations.each { segmentAnnotation(server, it, downsample, margin) }
    if (annotations.empty) {
        def root = QP.getCurrentHierarchy().rootObject
        [0..<server.nTimepoints(), 0..<server.nZSlices()].combinations().each { t, z ->
            RegionRequest region = RegionRequest.createInstance(server.path, downsample, 0, 0, server.width, server.height, z, t)
            replaceDetections(root, detectionsIn(server, region), region)
        }
    }
} finally {
    QP.fireHierarchyUpdate() // what has come before a refusal shows, too
}
