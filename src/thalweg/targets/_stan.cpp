// What Python asks of a compiled Stan model, by ctypes. THALWEG_MODEL is the C++ that stanc made of the program.
//
// Arrays are row after row, one row a point. A text that is returned is the caller's, to be given to thalweg_forget;
// a null pointer says that all went well.

#include THALWEG_MODEL

#include <stan/io/array_var_context.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

using Model = stan::model::model_base;
using Vector = Eigen::VectorXd;
using Clock = std::chrono::steady_clock;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
// A thread takes about 20 us to start, and longer on a busy machine: worth it for rows that take this long together.
constexpr double kSecondsForThreads = 2e-3;
constexpr int64_t kRowsToJudgeBy = 4;

char* text(const std::string& words) {
  char* copy = static_cast<char*>(std::malloc(words.size() + 1));
  std::memcpy(copy, words.c_str(), words.size() + 1);
  return copy;
}

// Stan Math's tape belongs to a thread; each that computes must have one.
void need_tape() { static thread_local stan::math::ChainableStack tape; }

// `row(i)` for each of n rows, on several threads where they take long. A row that the model rejects (a domain_error,
// which is what reject() and bad parameters of a distribution throw) goes to `rejected(i)`; whatever else is thrown
// ends all of them, and is returned.
template <typename Row, typename Rejected>
char* each_row(int64_t n, int64_t n_threads, Row&& row, Rejected&& rejected) {
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::string failure;
  auto one = [&](int64_t i) {
    try {
      row(i);
    } catch (const std::domain_error&) {
      rejected(i);
    } catch (const std::exception& error) {
      if (!failed.exchange(true)) failure = error.what();
    }
    stan::math::recover_memory();
  };
  auto work = [&] {
    need_tape();
    for (int64_t i = next++; i < n && !failed; i = next++) one(i);
  };
  need_tape();
  const auto start = Clock::now();
  std::vector<std::thread> others;
  while (!failed) {
    const int64_t i = next++;
    if (i >= n) break;
    one(i);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (i + 1 < kRowsToJudgeBy || n_threads < 2) continue;
    if (seconds / (i + 1) * (n - i - 1) > kSecondsForThreads) {
      for (int64_t k = 1; k < std::min(n_threads, n - i - 1); ++k) others.emplace_back(work);
      work();
      break;
    }
  }
  for (auto& thread : others) thread.join();
  return failed ? text(failure) : nullptr;
}

// Whole numbers and reals by name, from lines "i NAME DIM DIM ..." or "r NAME DIM ..."; arrays first index fastest.
stan::io::array_var_context data_of(const char* names, const int* whole, const double* reals) {
  std::vector<std::string> names_i, names_r;
  std::vector<std::vector<size_t>> dims_i, dims_r;
  std::vector<int> values_i;
  std::vector<double> values_r;
  std::istringstream lines(names);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string kind, name;
    words >> kind >> name;
    std::vector<size_t> dims;
    size_t size = 1;
    for (size_t dim; words >> dim;) {
      dims.push_back(dim);
      size *= dim;
    }
    if (kind == "i") {
      names_i.push_back(name);
      dims_i.push_back(dims);
      values_i.insert(values_i.end(), whole, whole + size);
      whole += size;
    } else {
      names_r.push_back(name);
      dims_r.push_back(dims);
      values_r.insert(values_r.end(), reals, reals + size);
      reals += size;
    }
  }
  return stan::io::array_var_context(names_r, values_r, dims_r, names_i, values_i, dims_i);
}

// A seed that belongs to the point, so that what is drawn at it is a function of it.
unsigned int seed_of(const double* u, int64_t d, unsigned int seed) {
  uint64_t mixed = 1469598103934665603u ^ seed;
  const auto* bytes = reinterpret_cast<const unsigned char*>(u);
  for (size_t i = 0; i < d * sizeof(double); ++i) mixed = (mixed ^ bytes[i]) * 1099511628211u;
  return static_cast<unsigned int>(mixed ^ (mixed >> 32));
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

void thalweg_forget(char* words) { std::free(words); }

char* thalweg_new(const char* names, const int* whole, const double* reals, void** model) {
  need_tape();
  try {
    auto data = data_of(names, whole, reals);
    *model = &new_model(data, 0, nullptr);
    return nullptr;
  } catch (const std::exception& error) {
    return text(error.what());
  }
}

void thalweg_delete(void* model) { delete static_cast<Model*>(model); }

// Lines "parameter NAME DIM ...", then "transformed NAME ...", "generated NAME ..." and "unconstrained NAME.INDEX".
char* thalweg_describe(void* model) {
  auto* m = static_cast<Model*>(model);
  std::vector<std::string> all, transformed, parameters, flat;
  std::vector<std::vector<size_t>> dims;
  m->get_param_names(parameters, false, false);
  m->get_param_names(transformed, true, false);
  m->get_param_names(all, true, true);
  m->get_dims(dims, true, true);
  std::ostringstream out;
  for (size_t i = 0; i < all.size(); ++i) {
    out << (i < parameters.size() ? "parameter " : i < transformed.size() ? "transformed " : "generated ") << all[i];
    for (auto dim : dims[i]) out << ' ' << dim;
    out << '\n';
  }
  m->unconstrained_param_names(flat, false, false);
  for (auto& name : flat) out << "unconstrained " << name << '\n';
  return text(out.str());
}

// Normalising constants and log-Jacobian included; -inf, with gradient 0, at points that the model rejects. A null
// `gradient` is not asked for: then nothing is put on tape.
char* thalweg_log_density(void* model, const double* u, int64_t n, int64_t d, double* value, double* gradient,
                          int64_t n_threads) {
  auto* m = static_cast<Model*>(model);
  auto row = [=](int64_t i) {
    Vector point = Eigen::Map<const Vector>(u + i * d, d);
    if (!gradient) {
      value[i] = m->log_prob_jacobian(point, nullptr);
      return;
    }
    Eigen::Matrix<stan::math::var, Eigen::Dynamic, 1> x = point;
    stan::math::var log_p = m->log_prob_jacobian(x, nullptr);
    value[i] = log_p.val();
    log_p.grad();
    Eigen::Map<Vector>(gradient + i * d, d) = x.adj();
  };
  auto rejected = [=](int64_t i) {
    value[i] = -kInfinity;
    if (gradient) std::fill(gradient + i * d, gradient + (i + 1) * d, 0.0);
  };
  return each_row(n, n_threads, row, rejected);
}

// Parameters, then (`derived`) transformed parameters and generated quantities, k numbers in all; and the
// log-determinant of the parameters' map, NaN at points that the model rejects.
char* thalweg_constrain(void* model, const double* u, int64_t n, int64_t d, double* constrained, int64_t k,
                        double* log_det, int64_t derived, const unsigned int* seeds, int64_t n_threads) {
  auto* m = static_cast<Model*>(model);
  auto row = [=](int64_t i) {
    Vector point = Eigen::Map<const Vector>(u + i * d, d), written;
    auto rng = stan::services::util::create_rng(seed_of(u + i * d, d, seeds[i]), 1);
    std::fill(constrained + i * k, constrained + (i + 1) * k, kNaN);
    m->write_array(rng, point, written, derived, derived, nullptr);
    std::copy(written.data(), written.data() + std::min<int64_t>(written.size(), k), constrained + i * k);
    if (!log_det) return;
    log_det[i] = kNaN;
    log_det[i] = m->log_prob_jacobian(point, nullptr) - m->log_prob(point, nullptr);
  };
  return each_row(n, n_threads, row, [](int64_t) {});
}

// NaN where values are outside their supports.
char* thalweg_unconstrain(void* model, const double* constrained, int64_t n, int64_t k, double* u, int64_t d,
                          int64_t n_threads) {
  auto* m = static_cast<Model*>(model);
  auto row = [=](int64_t i) {
    std::fill(u + i * d, u + (i + 1) * d, kNaN);
    Vector values = Eigen::Map<const Vector>(constrained + i * k, k), point;
    m->unconstrain_array(values, point, nullptr);
    std::copy(point.data(), point.data() + std::min<int64_t>(point.size(), d), u + i * d);
  };
  return each_row(n, n_threads, row, [](int64_t) {});
}
}
#pragma GCC visibility pop
