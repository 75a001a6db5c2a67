// Predict with the model in this folder, by LiteRT on Android: put @FILE_NAME@ into assets/.
//
// Written for this model: the resize, the crop and the normalisation are those of its model.json, by
// the arithmetic of Pillow's antialiased resize. Give it upright pictures: what BitmapFactory decodes
// is not turned by its EXIF orientation (androidx.exifinterface tells it). Check it with golden.npz.
//
//   implementation("com.google.ai.edge.litert:litert:1.4.0")
package mobilenet

import android.content.Context
import android.graphics.Bitmap
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.max
import kotlin.math.min
import org.tensorflow.lite.Interpreter

data class Prediction(val label: String, val score: Double)

private const val FILE = @FILE@
private const val SIZE = @SIZE@ // pixels of the network's square input
private const val SHORTER = @SHORTER@ // the shorter side before the crop; 0: none
private const val FRACTION = @FRACTION@ // of each side that is cut out before; 1: all
private const val BICUBIC = @BICUBIC@ // else bilinear
private const val CHANNELS_LAST = @CHANNELS_LAST@
private val MEAN = floatArrayOf(@MEAN@)
private val STD = floatArrayOf(@STD@)
private val LABELS = listOf(
@LABELS@
)

/** RGB, 0 to 255, three numbers a pixel, rows from the top. */
class Picture(val width: Int, val height: Int, val rgb: IntArray) {
    companion object {
        fun of(bitmap: Bitmap): Picture {
            val pixels = IntArray(bitmap.width * bitmap.height)
            bitmap.getPixels(pixels, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
            val rgb = IntArray(3 * pixels.size) { (pixels[it / 3] shr (16 - 8 * (it % 3))) and 255 }
            return Picture(bitmap.width, bitmap.height, rgb)
        }
    }
}

private fun weightAt(distance: Double): Double {
    val x = abs(distance)
    if (!BICUBIC) return if (x < 1) 1 - x else 0.0
    val a = -0.5
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a
    return 0.0
}

/** One axis; `at(line, pixel)` is where a pixel is, before and after. */
private fun along(
    rgb: IntArray, from: Int, to: Int, lines: Int,
    at: (Int, Int) -> Int, outAt: (Int, Int) -> Int
): IntArray {
    val bits = 22
    val scale = from.toDouble() / to
    val stretch = max(scale, 1.0)
    val support = (if (BICUBIC) 2 else 1) * stretch
    val out = IntArray(3 * lines * to)
    for (i in 0 until to) {
        val middle = (i + 0.5) * scale
        val start = max((middle - support + 0.5).toInt(), 0)
        val end = min((middle + support + 0.5).toInt(), from)
        val exact = DoubleArray(end - start) { weightAt((it + start - middle + 0.5) / stretch) }
        val sum = exact.sum()
        val weights = IntArray(exact.size) {
            val w = exact[it] / sum * (1 shl bits)
            (if (w < 0) w - 0.5 else w + 0.5).toInt()
        }
        for (line in 0 until lines) for (c in 0..2) {
            var total = 1 shl (bits - 1)
            for (k in weights.indices) total += rgb[at(line, start + k) + c] * weights[k]
            out[outAt(line, i) + c] = min(max(total shr bits, 0), 255)
        }
    }
    return out
}

private fun rows(p: Picture, width: Int) = Picture(
    width, p.height,
    along(p.rgb, p.width, width, p.height, { y, x -> 3 * (y * p.width + x) },
        { y, x -> 3 * (y * width + x) })
)

private fun columns(p: Picture, height: Int) = Picture(
    p.width, height,
    along(p.rgb, p.height, height, p.width, { x, y -> 3 * (y * p.width + x) },
        { x, y -> 3 * (y * p.width + x) })
)

private fun resize(p: Picture, width: Int, height: Int): Picture {
    // Pillow, from version 13 on, starts along the columns where the height shrinks by far the most
    val lower = p.height - height
    val narrower = p.width - width
    return if (lower <= 0 || lower <= 2 * narrower) columns(rows(p, width), height)
    else rows(columns(p, height), width)
}

/** Black outside. */
private fun cut(p: Picture, left: Int, top: Int, width: Int, height: Int): Picture {
    val found = IntArray(3 * width * height)
    for (y in max(0, -top) until min(height, p.height - top))
        for (x in max(0, -left) until min(width, p.width - left))
            for (c in 0..2)
                found[3 * (y * width + x) + c] = p.rgb[3 * ((y + top) * p.width + x + left) + c]
    return Picture(width, height, found)
}

private fun centre(length: Int): Int {
    if (length < SIZE) return -((SIZE - length) / 2)
    val half = (length - SIZE) / 2
    return half + (if ((length - SIZE) % 2 != 0 && half % 2 != 0) 1 else 0) // half to even
}

private fun cropped(p: Picture): Picture {
    if (SHORTER == 0) {
        val left = ((p.width - p.width * FRACTION) / 2).toInt()
        val top = ((p.height - p.height * FRACTION) / 2).toInt()
        return resize(cut(p, left, top, p.width - 2 * left, p.height - 2 * top), SIZE, SIZE)
    }
    val tall = p.width <= p.height
    val longer = if (tall) p.height else p.width
    val other = ((SHORTER.toLong() * longer).toDouble() / (if (tall) p.width else p.height)).toInt()
    val found = if (tall) resize(p, SHORTER, other) else resize(p, other, SHORTER)
    return cut(found, centre(found.width), centre(found.height), SIZE, SIZE)
}

/** The network's input of a picture. */
fun prepare(picture: Picture): FloatArray {
    val p = cropped(picture)
    val pixels = SIZE * SIZE
    val image = FloatArray(3 * pixels)
    for (i in 0 until pixels) for (c in 0..2)
        image[if (CHANNELS_LAST) 3 * i + c else c * pixels + i] =
            (p.rgb[3 * i + c] / 255f - MEAN[c]) / STD[c]
    return image
}

class Classifier(context: Context) : AutoCloseable {
    private val interpreter = context.assets.openFd(FILE).use { asset ->
        FileInputStream(asset.fileDescriptor).channel.use { channel ->
            val model = channel.map(
                FileChannel.MapMode.READ_ONLY, asset.startOffset, asset.declaredLength
            )
            Interpreter(model)
        }
    }

    fun predict(bitmap: Bitmap, top: Int = 5): List<Prediction> {
        val image = ByteBuffer.allocateDirect(4 * 3 * SIZE * SIZE).order(ByteOrder.nativeOrder())
        image.asFloatBuffer().put(prepare(Picture.of(bitmap)))
        val logits = arrayOf(FloatArray(LABELS.size))
        interpreter.run(image, logits)
        val most = logits[0].maxOrNull()!!
        val scores = logits[0].map { exp((it - most).toDouble()) }
        val sum = scores.sum()
        return LABELS.zip(scores) { label, score -> Prediction(label, score / sum) }
            .sortedByDescending { it.score }.take(top)
    }

    override fun close() = interpreter.close()
}
