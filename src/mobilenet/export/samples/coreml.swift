// Predict with the model in this folder, by Core ML: put @FILE_NAME@ into the app.
//
// Written for this model: the resize, the crop and the normalisation are those of its model.json, by
// the arithmetic of Pillow's antialiased resize. Give it upright pictures. Check it with golden.npz.
import CoreML
import Foundation

let size = @SIZE@ // pixels of the network's square input
let shorter = @SHORTER@ // the shorter side before the crop; 0: none
let fraction = @FRACTION@ // of each side that is cut out before; 1: all
let bicubic = @BICUBIC@ // else bilinear
let mean: [Float] = [@MEAN@]
let std: [Float] = [@STD@]
let labels = [
@LABELS@
]

/// RGB, three bytes a pixel, rows from the top.
struct Picture {
    var width: Int
    var height: Int
    var rgb: [UInt8]
}

private func weight(at distance: Double) -> Double {
    let x = abs(distance)
    if !bicubic { return x < 1 ? 1 - x : 0 }
    let a = -0.5
    if x < 1 { return ((a + 2) * x - (a + 3)) * x * x + 1 }
    if x < 2 { return (((x - 5) * x + 8) * x - 4) * a }
    return 0
}

/// One axis: a pixel of a line is `step` bytes behind the one before it, a line `line` bytes.
private func along(
    _ rgb: [UInt8], from: Int, to: Int, lines: Int, step: Int, line: Int, outStep: Int, outLine: Int
) -> [UInt8] {
    let bits = 22
    let scale = Double(from) / Double(to), stretch = max(scale, 1)
    let support = (bicubic ? 2 : 1) * stretch
    var out = [UInt8](repeating: 0, count: 3 * lines * to)
    for i in 0..<to {
        let middle = (Double(i) + 0.5) * scale
        let start = max(Int(middle - support + 0.5), 0)
        let end = min(Int(middle + support + 0.5), from)
        let exact = (start..<end).map { weight(at: (Double($0) - middle + 0.5) / stretch) }
        let sum = exact.reduce(0, +)
        let weights = exact.map { value -> Int in
            let w = value / sum * Double(1 << bits)
            return Int(w < 0 ? w - 0.5 : w + 0.5)
        }
        for y in 0..<lines {
            for c in 0..<3 {
                var total = 1 << (bits - 1)
                for (k, w) in weights.enumerated() {
                    total += Int(rgb[y * line + (start + k) * step + c]) * w
                }
                out[y * outLine + i * outStep + c] = UInt8(min(max(total >> bits, 0), 255))
            }
        }
    }
    return out
}

private func resize(_ from: Picture, _ width: Int, _ height: Int) -> Picture {
    func rows(_ p: Picture) -> Picture {
        let rgb = along(
            p.rgb, from: p.width, to: width, lines: p.height, step: 3, line: 3 * p.width,
            outStep: 3, outLine: 3 * width)
        return Picture(width: width, height: p.height, rgb: rgb)
    }
    func columns(_ p: Picture) -> Picture {
        let line = 3 * p.width
        let rgb = along(
            p.rgb, from: p.height, to: height, lines: p.width, step: line, line: 3,
            outStep: line, outLine: 3)
        return Picture(width: p.width, height: height, rgb: rgb)
    }
    // Pillow, from version 13 on, starts along the columns where the height shrinks by far the most
    let lower = from.height - height, narrower = from.width - width
    return lower <= 0 || lower <= 2 * narrower ? columns(rows(from)) : rows(columns(from))
}

/// Black outside.
private func cut(_ p: Picture, _ left: Int, _ top: Int, _ width: Int, _ height: Int) -> Picture {
    var rgb = [UInt8](repeating: 0, count: 3 * width * height)
    for y in 0..<height where y + top >= 0 && y + top < p.height {
        for x in 0..<width where x + left >= 0 && x + left < p.width {
            for c in 0..<3 {
                rgb[3 * (y * width + x) + c] = p.rgb[3 * ((y + top) * p.width + x + left) + c]
            }
        }
    }
    return Picture(width: width, height: height, rgb: rgb)
}

private func centre(_ length: Int) -> Int {
    if length < size { return -((size - length) / 2) }
    let half = (length - size) / 2
    return half + ((length - size) % 2 != 0 && half % 2 != 0 ? 1 : 0) // half to even
}

private func cropped(_ p: Picture) -> Picture {
    if shorter == 0 {
        let left = Int((Double(p.width) - Double(p.width) * fraction) / 2)
        let top = Int((Double(p.height) - Double(p.height) * fraction) / 2)
        return resize(cut(p, left, top, p.width - 2 * left, p.height - 2 * top), size, size)
    }
    let tall = p.width <= p.height
    let longer = tall ? p.height : p.width
    let other = Int(Double(shorter * longer) / Double(tall ? p.width : p.height))
    let found = tall ? resize(p, shorter, other) : resize(p, other, shorter)
    return cut(found, centre(found.width), centre(found.height), size, size)
}

/// The network's input of a picture: 1 x 3 x size x size.
func prepare(_ picture: Picture) throws -> MLMultiArray {
    let p = cropped(picture)
    let side = NSNumber(value: size)
    let image = try MLMultiArray(shape: [1, 3, side, side], dataType: .float32)
    let numbers = image.dataPointer.bindMemory(to: Float.self, capacity: 3 * size * size)
    for i in 0..<(size * size) {
        for c in 0..<3 {
            numbers[c * size * size + i] = (Float(p.rgb[3 * i + c]) / 255 - mean[c]) / std[c]
        }
    }
    return image
}

/// The likeliest classes of a picture, the best first.
func predict(_ picture: Picture, with model: MLModel, top: Int = 5) throws -> [(String, Double)] {
    let input = try MLDictionaryFeatureProvider(dictionary: [@INPUT@: prepare(picture)])
    let answer = try model.prediction(from: input)
    guard let logits = answer.featureValue(for: @OUTPUT@)?.multiArrayValue else { return [] }
    let values = labels.indices.map { logits[$0].doubleValue }
    let most = values.max() ?? 0
    let scores = values.map { exp($0 - most) }
    let sum = scores.reduce(0, +)
    let ranked = zip(labels, scores.map { $0 / sum }).sorted { $0.1 > $1.1 }
    return Array(ranked.prefix(top))
}
