// SPDX-License-Identifier: Apache-2.0

// oneDNN 3.6 or later: the first that has weights of four bits. Its weights are laid out as it asks
// for, once.

#include <oneapi/dnnl/dnnl.hpp>

#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>

#include "contenders/contenders.hpp"

namespace quell::bench {
namespace {

using dnnl::memory;
using Type = memory::data_type;
using Tag = memory::format_tag;

dnnl::engine& engine() {
  static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

memory::dim dim(std::size_t value) {
  return static_cast<memory::dim>(value);
}

class Matmul final : public Prepared {
 public:
  /// `codes` [n, k] of type `w`, k contiguous; `scales` [k / group, n], none if empty. Activations
  /// of int8 have one scale, 1.
  Matmul(const PreparedShape& shape, Type x, Type w, const void* codes, std::size_t group,
         const std::vector<float>& scales)
      : stream_(engine()) {
    const memory::dim m = dim(shape.m), n = dim(shape.n), k = dim(shape.k);
    dnnl::primitive_attr attributes;
    if (!scales.empty()) {
      const memory::desc of_scales({k / dim(group), n}, Type::f32, Tag::ab);
      if (group == shape.k) {
        attributes.set_scales_mask(DNNL_ARG_WEIGHTS, 2);
      } else {
        attributes.set_scales(DNNL_ARG_WEIGHTS, 3, {dim(group), 1}, Type::f32);
      }
      memory held(group == shape.k ? memory::desc({n}, Type::f32, Tag::a) : of_scales, engine());
      std::memcpy(held.get_data_handle(), scales.data(), scales.size() * sizeof(float));
      arguments_.emplace(DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS, held);
    }
    // Whole numbers become floats in the product.
    if (x == Type::f32 && w != Type::f32) {
      attributes.set_fpmath_mode(dnnl::fpmath_mode::strict, true);
    }
    x_ = memory({{m, k}, x, Tag::ab}, engine(), nullptr);
    y_ = memory({{m, n}, Type::f32, Tag::ab}, engine(), nullptr);
    const memory::desc as_it_asks({k, n}, w, Tag::any), ours({k, n}, w, memory::dims{1, k});
    const dnnl::matmul::primitive_desc description(engine(), x_.get_desc(), as_it_asks,
                                                   y_.get_desc(), attributes);
    name_ = description.impl_info_str();
    memory from(ours, engine(), const_cast<void*>(codes));
    memory to(description.weights_desc(), engine());
    dnnl::reorder(from, to).execute(stream_, from, to);
    stream_.wait();
    bytes_ = to.get_desc().get_size() + scales.size() * sizeof(float);
    arguments_.emplace(DNNL_ARG_SRC, x_);
    arguments_.emplace(DNNL_ARG_WEIGHTS, to);
    arguments_.emplace(DNNL_ARG_DST, y_);
    product_ = dnnl::matmul(description);
  }

  void multiply(const void* x, float* y) override {
    x_.set_data_handle(const_cast<void*>(x));
    y_.set_data_handle(y);
    product_.execute(stream_, arguments_);
    stream_.wait();
  }
  std::size_t bytes() const override { return bytes_; }
  std::string name() const override { return "onednn " + name_; }

 private:
  dnnl::stream stream_;
  memory x_, y_;
  std::unordered_map<int, memory> arguments_;
  dnnl::matmul product_;
  std::string name_;
  std::size_t bytes_ = 0;
};

/// Null where it has only its plain loops, or nothing at all.
std::unique_ptr<Prepared> fast_or_null(const PreparedShape& shape, Type x, Type w,
                                       const void* codes, std::size_t group,
                                       const std::vector<float>& scales) {
  try {
    auto made = std::make_unique<Matmul>(shape, x, w, codes, group, scales);
    if (made->name().find("ref") != std::string::npos) return nullptr;
    return made;
  } catch (const dnnl::error&) {
    return nullptr;
  }
}

}  // namespace

std::unique_ptr<Prepared> onednn_f32(const PreparedShape& shape, const float* weights) {
  return fast_or_null(shape, Type::f32, Type::f32, weights, shape.k, {});
}

std::unique_ptr<Prepared> onednn_quantized(const PreparedShape& shape, bool int8_activations,
                                           unsigned bits, const std::int8_t* codes,
                                           std::size_t group, const std::vector<float>& scales) {
  const Type x = int8_activations ? Type::s8 : Type::f32;
  if (bits == 8) return fast_or_null(shape, x, Type::s8, codes, group, scales);
  std::vector<std::uint8_t> halves(shape.n * shape.k / 2);
  for (std::size_t i = 0; i < halves.size(); ++i) {
    halves[i] = static_cast<std::uint8_t>((codes[2 * i] & 15) | (codes[2 * i + 1] & 15) << 4);
  }
  return fast_or_null(shape, x, Type::s4, halves.data(), group, scales);
}

}  // namespace quell::bench
