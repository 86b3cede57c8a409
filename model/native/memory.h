// Arrays aligned to cache lines that grow and never shrink, and large ones made of untouched pages.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace stele {

// Scratch or weights: what it holds is lost when it grows.
template <class T>
class Array {
  public:
    Array() = default;
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    Array(Array&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Array& operator=(Array&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~Array() { std::free(data_); }

    T* reserve(size_t size) {
        if (size > size_) {
            std::free(data_);
            size_ = 0;
            data_ = static_cast<T*>(std::aligned_alloc(64, (size * sizeof(T) + 63) / 64 * 64));
            if (!data_) throw std::bad_alloc();
            size_ = size;
        }
        return data_;
    }
    T* zeros(size_t size) {
        std::memset(static_cast<void*>(reserve(size)), 0, size * sizeof(T));
        return data_;
    }
    T* get() const { return data_; }
    T& operator[](size_t index) const { return data_[index]; }
    size_t bytes() const { return size_ * sizeof(T); }

  private:
    T* data_ = nullptr;
    size_t size_ = 0;
};

// Zeros whose memory is taken from the system only where it is written.
template <class T>
class Pages {
  public:
    explicit Pages(size_t size) : bytes_(size * sizeof(T)) {
        void* memory = mmap(nullptr, bytes_ ? bytes_ : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        madvise(memory, bytes_, MADV_NOHUGEPAGE);  // a huge page would make whole rows resident
        data_ = static_cast<T*>(memory);
    }
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;
    ~Pages() { munmap(data_, bytes_ ? bytes_ : 1); }
    T* get() const { return data_; }

  private:
    size_t bytes_;
    T* data_;
};

}  // namespace stele
