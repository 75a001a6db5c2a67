// mobilenet._engine: the C API as Python classes on NumPy arrays. See _engine.pyi for its types.
#include <mobilenet.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "../dispatch/dispatch.h"
#include "../format/format.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Images = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Picture = nb::ndarray<const uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<nb::numpy, float>;

PyObject* engine_error = nullptr;  // EngineError(status, text), alive as long as the module

[[noreturn]] void raise(mobilenet_status status, const char* text) {
  nb::object arguments = nb::make_tuple(static_cast<int>(status), text);
  PyErr_SetObject(engine_error, arguments.ptr());
  throw nb::python_error();
}

void check(mobilenet_status status) {
  if (status != MOBILENET_OK) raise(status, mobilenet_error());
}

Floats empty(const std::vector<size_t>& shape) {
  size_t count = 1;
  for (size_t size : shape) count *= size;
  auto data = std::make_unique<float[]>(count);
  nb::capsule owner(data.get(), [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return Floats(data.release(), shape.size(), shape.data(), owner);
}

class Model {
 public:
  // A path is mapped; anything else is a buffer, such as bytes or an mmap, and stays held.
  explicit Model(nb::object source) {
    mobilenet_status status;
    if (nb::isinstance<nb::str>(source)) {
      const nb::object path = nb::steal(PyUnicode_EncodeFSDefault(source.ptr()));
      if (!path.is_valid()) throw nb::python_error();
      nb::gil_scoped_release unlocked;
      status = mobilenet_load(PyBytes_AS_STRING(path.ptr()), &model_);
    } else {
      if (PyObject_GetBuffer(source.ptr(), &buffer_, PyBUF_SIMPLE) != 0) throw nb::python_error();
      nb::gil_scoped_release unlocked;
      status = mobilenet_load_memory(buffer_.buf, static_cast<size_t>(buffer_.len), &model_);
    }
    if (status != MOBILENET_OK) PyBuffer_Release(&buffer_);
    check(status);
  }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  ~Model() {
    mobilenet_free_model(model_);
    PyBuffer_Release(&buffer_);
  }

  const mobilenet_model* get() const { return model_; }

  nb::tuple labels() const {
    nb::list found;
    const int count = mobilenet_label_count(model_);
    for (int i = 0; i < count; i++) found.append(mobilenet_label(model_, i));
    return nb::tuple(found);
  }

 private:
  Py_buffer buffer_{};
  mobilenet_model* model_ = nullptr;
};

class Engine {
 public:
  Engine(const Model& model, int height, int width, int threads, std::optional<std::string> isa) {
    const mobilenet_options options{height, width, threads, isa ? isa->c_str() : nullptr};
    mobilenet_status status;
    {
      nb::gil_scoped_release unlocked;
      status = mobilenet_plan(model.get(), &options, &engine_);
    }
    check(status);
    height_ = static_cast<size_t>(height ? height : mobilenet_height(model.get()));
    width_ = static_cast<size_t>(width ? width : mobilenet_width(model.get()));
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine() { mobilenet_free_engine(engine_); }

  nb::dict run(const Images& images) {
    const size_t batch = images.shape(0);
    if (images.shape(1) != 3 || images.shape(2) != height_ || images.shape(3) != width_)
      raise(MOBILENET_BAD_ARGUMENT,
            ("images: expected float32 (N, 3, " + std::to_string(height_) + ", " +
             std::to_string(width_) + ")").c_str());
    nb::dict results;
    std::vector<float*> outputs;
    for (int i = 0; i < mobilenet_output_count(engine_); i++) {
      const mobilenet_output output = mobilenet_output_at(engine_, i);
      Floats array = empty({batch, static_cast<size_t>(output.channels),
                            static_cast<size_t>(output.height), static_cast<size_t>(output.width)});
      outputs.push_back(array.data());
      results[output.name] = array;
    }
    if (batch == 0) return results;
    mobilenet_status status;
    {
      nb::gil_scoped_release unlocked;
      status = mobilenet_run(engine_, images.data(), static_cast<int>(batch), outputs.data());
    }
    check(status);
    return results;
  }

  Floats prepare(const Picture& picture) const {
    if (picture.shape(2) != 3 || std::max(picture.shape(0), picture.shape(1)) > INT32_MAX)
      raise(MOBILENET_BAD_ARGUMENT, "picture: expected uint8 (H, W, 3)");
    Floats image = empty({3, height_, width_});
    mobilenet_status status;
    {
      nb::gil_scoped_release unlocked;
      status = mobilenet_prepare(engine_, picture.data(), static_cast<int>(picture.shape(0)),
                                 static_cast<int>(picture.shape(1)), image.data());
    }
    check(status);
    return image;
  }

  nb::list profile(const Images& images, int runs) {
    if (images.shape(0) != 1 || images.shape(1) != 3 || images.shape(2) != height_ ||
        images.shape(3) != width_)
      raise(MOBILENET_BAD_ARGUMENT, "profile: expected one image of the engine's size");
    std::vector<mobilenet_line> lines(20000);
    int count = 0;
    check(mobilenet_profile(engine_, images.data(), runs, lines.data(),
                            static_cast<int>(lines.size()), &count));
    nb::list found;
    for (int i = 0; i < count; i++)
      found.append(nb::make_tuple(lines[i].step, lines[i].kind, lines[i].seconds, lines[i].macs,
                                  lines[i].weight_bytes));
    return found;
  }

  double peak() const { return mobilenet_peak(engine_); }
  size_t arena_bytes() const { return mobilenet_arena_bytes(engine_); }
  const char* isa() const { return mobilenet_isa(engine_); }

  nb::dict outputs() const {
    nb::dict found;
    for (int i = 0; i < mobilenet_output_count(engine_); i++) {
      const mobilenet_output output = mobilenet_output_at(engine_, i);
      found[output.name] = nb::make_tuple(output.channels, output.height, output.width);
    }
    return found;
  }

 private:
  mobilenet_engine* engine_ = nullptr;
  size_t height_, width_;
};

Floats prepare(const Engine& engine, const Picture& picture) { return engine.prepare(picture); }

nb::tuple isas() {
  nb::list found;
  for (const char* const* isa = mobilenet_isas(); *isa; isa++) found.append(*isa);
  return nb::tuple(found);
}

// Of an engine that is planned now without another choice.
std::string isa() {
  std::string error;
  const mobilenet::Kernels* kernels = mobilenet::choose_kernels(nullptr, &error);
  if (!kernels) raise(MOBILENET_BAD_ARGUMENT, error.c_str());
  return kernels->name;
}

uint64_t checksum(const nb::bytes& data) {
  return mobilenet::checksum(reinterpret_cast<const uint8_t*>(data.c_str()), data.size());
}

}  // namespace

NB_MODULE(_engine, module) {
  engine_error = PyErr_NewException("mobilenet._engine.EngineError", nullptr, nullptr);
  if (!engine_error) throw nb::python_error();
  module.attr("EngineError") = nb::handle(engine_error);
  module.attr("__version__") = MOBILENET_VERSION;
  module.attr("BAD_FILE") = static_cast<int>(MOBILENET_BAD_FILE);
  module.attr("BAD_ARGUMENT") = static_cast<int>(MOBILENET_BAD_ARGUMENT);
  module.attr("NO_MEMORY") = static_cast<int>(MOBILENET_NO_MEMORY);
  module.attr("IO") = static_cast<int>(MOBILENET_IO);

  nb::class_<Model>(module, "Model")
      .def(nb::init<nb::object>(), "source"_a)
      .def_prop_ro("precision", [](const Model& m) { return mobilenet_precision(m.get()); })
      .def_prop_ro("contract", [](const Model& m) { return mobilenet_contract(m.get()); })
      .def_prop_ro("labels", &Model::labels)
      .def_prop_ro("height", [](const Model& m) { return mobilenet_height(m.get()); })
      .def_prop_ro("width", [](const Model& m) { return mobilenet_width(m.get()); });

  nb::class_<Engine>(module, "Engine")
      .def(nb::init<const Model&, int, int, int, std::optional<std::string>>(), "model"_a,
           "height"_a = 0, "width"_a = 0, "threads"_a = 1, "isa"_a = nb::none(),
           nb::keep_alive<1, 2>())
      .def("run", &Engine::run, "images"_a.noconvert())
      .def("profile", &Engine::profile, "images"_a.noconvert(), "runs"_a)
      .def("peak", &Engine::peak)
      .def_prop_ro("arena_bytes", &Engine::arena_bytes)
      .def_prop_ro("isa", &Engine::isa)
      .def_prop_ro("outputs", &Engine::outputs);

  module.def("isas", &isas);
  module.def("isa", &isa);
  module.def("checksum", &checksum, "data"_a);
  module.def("prepare", &prepare, "engine"_a, "picture"_a.noconvert());
}
