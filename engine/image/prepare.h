// From a picture's pixels to a network's input, as preprocess.py does it, bit for bit.
#ifndef MOBILENET_PREPARE_H
#define MOBILENET_PREPARE_H

#include <cstdint>

namespace mobilenet {

constexpr int kMaxPictureSide = 1 << 22;  // pixels; more could overflow a weighted sum

// `rgb` is h * w * 3 bytes, rows from the top; `out` is 3 * out_h * out_w floats, NCHW.
//
// `resize` above 0: the shorter side becomes `resize` pixels, then the centre is cropped, padded
// with black where it is too small. 0: the whole picture is squeezed. `filter` 0 is bilinear, 1
// bicubic, both antialiased. Returns false where memory runs out.
bool prepare(const uint8_t* rgb, int h, int w, int resize, int filter, int out_h, int out_w,
             const float mean[3], const float std[3], float* out);

}  // namespace mobilenet

#endif
