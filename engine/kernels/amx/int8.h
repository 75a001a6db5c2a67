// int8 on AMX: tiles of 64 inputs.
#ifndef MOBILENET_AMX_INT8_H
#define MOBILENET_AMX_INT8_H

#include "../vnni/pointwise.h"
#include "tiles.h"

namespace mobilenet {
namespace amx {

struct Int8 {
  static constexpr int bytes = 1;

  template <int Rows, int Columns>
  static MOBILENET_INLINE void dot() {
    _tile_dpbusd(0, 4, 6);
    if constexpr (Columns == 2) _tile_dpbusd(1, 4, 7);
    if constexpr (Rows == 2) _tile_dpbusd(2, 5, 6);
    if constexpr (Rows == 2 && Columns == 2) _tile_dpbusd(3, 5, 7);
  }
  template <class V>
  static generic::StoreSums store_sums(const Pointwise& g) {
    return generic::store_sums_i8<V>(g);
  }
  // Zero times any byte is zero.
  static Inputs last_rows(Inputs in, int, uint8_t*) { return in; }
};

template <class V>
void pointwise_i8(const Pointwise& g) {
  if (g.pixels == 1 && g.in_plane == g.in_block) {
    Pointwise vector = g;  // its channels lie one after another
    vector.in_block = kBlock;
    vector.in_plane = kBlock;
    return vnni::matrix_vector<V>(vector, generic::store_sums_i8<V>(g));
  }
  Convolution<Int8, V>(g).run();
}

}  // namespace amx
}  // namespace mobilenet

#endif
