/* One pass of a Llama transformer for a few new positions, on a CPU.
 *
 * Weights are read once for all rows, in the order in which they lie in memory. Everything between the
 * weights is float32. Integer weights meet integers: rows are quantised in groups of 64, to 16 bits for int8
 * weights, whose error they do not add to, and to 8 bits for int4 weights. Every output is summed by one
 * thread in an order that depends neither on the number of threads nor on the number of rows, so a row's
 * result does not depend on its neighbours.
 *
 * Compiled by native/build.py on the machine that runs it; called through ctypes.
 */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

/* Declared here because omp.h is not everywhere where the runtime is. */
extern int omp_get_thread_num(void);
extern int omp_get_num_threads(void);

#define GROUP 64
#define MAX_ROWS 32      /* of one pass */
#define MAX_TILE_ROWS 8  /* multiplied at a time */
#define MAX_TILE_WEIGHTS 4
#define PREFETCH 4096    /* bytes ahead, at least */
#define INLINE static inline __attribute__((always_inline))

enum { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2, INT4 = 3 };

typedef struct {
    int64_t kind;
    int64_t n_in, n_out;
    int64_t row_bytes;
    const void *data;
    const uint16_t *scales; /* bfloat16; int8: [n_out]; int4: [n_out][n_groups] */
    const uint16_t *zeros;  /* int4: as the scales */
} Matrix;

typedef struct {
    const float *attn_norm, *mlp_norm;
    Matrix wqkv, wo, w_gate_up, w_down;
} Layer;

typedef struct {
    int64_t n_layers, dim, n_heads, n_kv_heads, head_dim, n_inner;
    double eps;
    const Layer *layers;
    const float *norm;
    const float *table; /* cosines and sines [n_positions][head_dim / 2][2] */
} Model;

typedef struct {
    int64_t kind; /* FLOAT32 or BFLOAT16 */
    int64_t n_rows;
    void *data;   /* [n_layers][2][B][n_kv_heads][n_positions][head_dim], with these strides in elements: */
    int64_t layer_stride, side_stride, row_stride, head_stride;
} Cache;

/* ---- numbers ---- */

INLINE float from_bf16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
}

INLINE uint16_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return (uint16_t)((bits >> 16) | 64);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* exp with a relative error below 2.3e-7 (Cody and Waite's reduction, Taylor's series to the 6th power); unlike
 * the library's it can be done for a vector of numbers. */
INLINE float fast_exp(float x) {
    x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    float n = (float)(int32_t)(x * 1.44269504f + (x < 0 ? -0.5f : 0.5f));
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

/* ---- rows to be multiplied ---- */

typedef struct {
    const float *x;  /* [n_rows][x_stride] */
    int64_t x_stride;
    int16_t *q16;    /* for int8 weights: [n_rows][q_stride] */
    int8_t *q8;      /* for int4 weights */
    int64_t q_stride;
    float *scales;   /* [n_rows][n_groups]: x = q * scale */
    float *sums;     /* [n_rows][n_groups]: of x, for the zeros of int4 weights */
    int64_t n_groups;
} Rows;

static int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

static void quantize_rows(Rows *rows, int64_t n_rows, int64_t n_in, int64_t kind) {
    rows->q_stride = round_up(n_in, 2 * GROUP);
    rows->n_groups = rows->q_stride / GROUP;
    const float most = kind == INT8 ? 32767.0f : 127.0f;
    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t g = 0; g < rows->n_groups; g++) {
            float part[GROUP] = {0};
            const float *x = rows->x + r * rows->x_stride + g * GROUP;
            int64_t n = n_in - g * GROUP;
            if (n > 0) memcpy(part, x, (size_t)(n < GROUP ? n : GROUP) * sizeof(float));
            float largest = 0;
#pragma omp simd reduction(max : largest)
            for (int k = 0; k < GROUP; k++) {
                float size = fabsf(part[k]);
                largest = size > largest ? size : largest;
            }
            const float scale = largest / most;
            const float inverse = largest > 0 ? most / largest : 0;
            int32_t whole[GROUP], sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int k = 0; k < GROUP; k++) {
                float value = part[k] * inverse;
                whole[k] = (int32_t)(value + (value < 0 ? -0.5f : 0.5f));
                sum += whole[k];
            }
            if (kind == INT8) {
                int16_t *q = rows->q16 + r * rows->q_stride + g * GROUP;
                for (int k = 0; k < GROUP; k++) q[k] = (int16_t)whole[k];
            } else {
                int8_t *q = rows->q8 + r * rows->q_stride + g * GROUP;
                for (int k = 0; k < GROUP; k++) q[k] = (int8_t)whole[k];
            }
            rows->scales[r * rows->n_groups + g] = scale;
            rows->sums[r * rows->n_groups + g] = scale * (float)sum;
        }
    }
}

/* ---- vectors ---- */

#if defined(__AVX512BW__)
#define HAS_VECTORS 1
#define VF __m512
#define VI __m512i
#define LANES 16
INLINE VF vf_zero(void) { return _mm512_setzero_ps(); }
INLINE VF vf_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vf_store(float *p, VF a) { _mm512_storeu_ps(p, a); }
INLINE VF vf_multiply(VF a, VF b) { return _mm512_mul_ps(a, b); }
INLINE VF vf_load_bf16(const uint16_t *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
INLINE VF vf_fma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
INLINE VF vf_fill(float x) { return _mm512_set1_ps(x); }
INLINE float vf_sum(VF a) { return _mm512_reduce_add_ps(a); }
INLINE VF vf_from_ints(VI a) { return _mm512_cvtepi32_ps(a); }
INLINE VI vi_zero(void) { return _mm512_setzero_si512(); }
INLINE VI vi_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE VI vi_widen8(const int8_t *p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)p)); }
INLINE VI vi_low4(VI a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
INLINE VI vi_high4(VI a) { return vi_low4(_mm512_srli_epi16(a, 4)); }
#if defined(__AVX512VNNI__)
INLINE VI vi_dot16(VI sum, VI a, VI b) { return _mm512_dpwssd_epi32(sum, a, b); }
INLINE VI vi_dot8(VI sum, VI a, VI b) { return _mm512_dpbusd_epi32(sum, a, b); }
#else
INLINE VI vi_dot16(VI sum, VI a, VI b) { return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)); }
INLINE VI vi_dot8(VI sum, VI a, VI b) { /* 15 * 127 * 2 fits into 16 bits */
    VI pairs = _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1));
    return _mm512_add_epi32(sum, pairs);
}
#endif
#elif defined(__AVX2__) && defined(__FMA__)
#define HAS_VECTORS 1
#define VF __m256
#define VI __m256i
#define LANES 8
INLINE VF vf_zero(void) { return _mm256_setzero_ps(); }
INLINE VF vf_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vf_store(float *p, VF a) { _mm256_storeu_ps(p, a); }
INLINE VF vf_multiply(VF a, VF b) { return _mm256_mul_ps(a, b); }
INLINE VF vf_load_bf16(const uint16_t *p) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
INLINE VF vf_fma(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
INLINE VF vf_fill(float x) { return _mm256_set1_ps(x); }
INLINE float vf_sum(VF a) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}
INLINE VF vf_from_ints(VI a) { return _mm256_cvtepi32_ps(a); }
INLINE VI vi_zero(void) { return _mm256_setzero_si256(); }
INLINE VI vi_load(const void *p) { return _mm256_loadu_si256(p); }
INLINE VI vi_widen8(const int8_t *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)p)); }
INLINE VI vi_low4(VI a) { return _mm256_and_si256(a, _mm256_set1_epi8(15)); }
INLINE VI vi_high4(VI a) { return vi_low4(_mm256_srli_epi16(a, 4)); }
INLINE VI vi_dot16(VI sum, VI a, VI b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
INLINE VI vi_dot8(VI sum, VI a, VI b) {
    VI pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1));
    return _mm256_add_epi32(sum, pairs);
}
#else
#define HAS_VECTORS 0
#endif

/* How far ahead of a place in a tile's rows to fetch. The next tiles' rows lie behind this one's: what is a
 * row's length ahead is only the next row of the same tile. */
INLINE int64_t fetch_ahead(const Matrix *m, int n_w) {
    const int64_t bytes = n_w * m->row_bytes;
#if defined(NO_FETCH_AHEAD) /* for bench.kernels: fetches what is being read anyway */
    return 0;
#endif
    return bytes >= 4 * PREFETCH ? PREFETCH / 4 : round_up(PREFETCH, bytes);
}

/* ---- a few weight rows times a few rows ----
 *
 * sums[i][r] = weight row `first + i` times row `r0 + r`, for i < n_w, r < n_r. All counts are constants where
 * these are inlined, so that the sums stay in registers.
 */

typedef float Sums[MAX_TILE_WEIGHTS][MAX_TILE_ROWS];

#if HAS_VECTORS
typedef VF Totals[MAX_TILE_WEIGHTS][MAX_TILE_ROWS];

INLINE void clear(Totals totals, int n_w, int n_r) {
    for (int i = 0; i < n_w; i++)
        for (int r = 0; r < n_r; r++) totals[i][r] = vf_zero();
}

INLINE void add_lanes(Totals totals, int n_w, int n_r, Sums sums) {
    for (int i = 0; i < n_w; i++)
        for (int r = 0; r < n_r; r++) sums[i][r] = vf_sum(totals[i][r]);
}
#endif

INLINE void tile_float(const Matrix *m, int64_t first, const Rows *rows, int64_t r0, int n_w, int n_r, int is_bf16,
                       Sums sums) {
    const char *base = (const char *)m->data + first * m->row_bytes;
    const float *x = rows->x + r0 * rows->x_stride;
    int64_t k = 0;
#if HAS_VECTORS
    const int64_t ahead = fetch_ahead(m, n_w);
    Totals total;
    clear(total, n_w, n_r);
    for (; k + LANES <= m->n_in; k += LANES) {
        for (int i = 0; i < n_w; i++) {
            const char *row = base + i * m->row_bytes;
            VF w;
            if (is_bf16) {
                w = vf_load_bf16((const uint16_t *)row + k);
                if (k % 32 == 0) __builtin_prefetch(row + 2 * k + ahead);
            } else {
                w = vf_load((const float *)row + k);
                if (k % 16 == 0) __builtin_prefetch(row + 4 * k + ahead);
            }
            for (int r = 0; r < n_r; r++) total[i][r] = vf_fma(w, vf_load(x + r * rows->x_stride + k), total[i][r]);
        }
    }
    add_lanes(total, n_w, n_r, sums);
    if (k == m->n_in) return;
#else
    for (int i = 0; i < n_w; i++)
        for (int r = 0; r < n_r; r++) sums[i][r] = 0;
#endif
    for (int i = 0; i < n_w; i++) {
        const char *row = base + i * m->row_bytes;
        for (int r = 0; r < n_r; r++) {
            const float *y = x + r * rows->x_stride;
            float sum = 0;
            if (is_bf16) {
#pragma omp simd reduction(+ : sum)
                for (int64_t j = k; j < m->n_in; j++) sum += from_bf16(((const uint16_t *)row)[j]) * y[j];
            } else {
#pragma omp simd reduction(+ : sum)
                for (int64_t j = k; j < m->n_in; j++) sum += ((const float *)row)[j] * y[j];
            }
            sums[i][r] += sum;
        }
    }
}

INLINE void tile_int8(const Matrix *m, int64_t first, const Rows *rows, int64_t r0, int n_w, int n_r, Sums sums) {
    const int8_t *base = (const int8_t *)m->data + first * m->row_bytes;
    const int16_t *q = rows->q16 + r0 * rows->q_stride;
    const float *scales = rows->scales + r0 * rows->n_groups;
    const int64_t n_whole = m->n_in / GROUP;
#if HAS_VECTORS
    const int64_t ahead = fetch_ahead(m, n_w);
    Totals total;
    clear(total, n_w, n_r);
    for (int64_t g = 0; g < n_whole; g++) {
        for (int i = 0; i < n_w; i++) {
            const int8_t *w = base + i * m->row_bytes + g * GROUP;
            VI dots[MAX_TILE_ROWS];
            __builtin_prefetch(w + ahead);
            for (int r = 0; r < n_r; r++) dots[r] = vi_zero();
            for (int k = 0; k < GROUP; k += 2 * LANES) {
                VI wide = vi_widen8(w + k);
                for (int r = 0; r < n_r; r++)
                    dots[r] = vi_dot16(dots[r], wide, vi_load(q + r * rows->q_stride + g * GROUP + k));
            }
            for (int r = 0; r < n_r; r++)
                total[i][r] = vf_fma(vf_from_ints(dots[r]), vf_fill(scales[r * rows->n_groups + g]), total[i][r]);
        }
    }
    add_lanes(total, n_w, n_r, sums);
#else
    for (int i = 0; i < n_w; i++)
        for (int r = 0; r < n_r; r++) {
            float total = 0;
            for (int64_t g = 0; g < n_whole; g++) {
                const int8_t *w = base + i * m->row_bytes + g * GROUP;
                const int16_t *y = q + r * rows->q_stride + g * GROUP;
                int32_t dot = 0;
#pragma omp simd reduction(+ : dot)
                for (int k = 0; k < GROUP; k++) dot += (int32_t)w[k] * (int32_t)y[k];
                total += (float)dot * scales[r * rows->n_groups + g];
            }
            sums[i][r] = total;
        }
#endif
    const int64_t start = n_whole * GROUP;
    for (int i = 0; i < n_w; i++) {
        const int8_t *w = base + i * m->row_bytes;
        const float scale = from_bf16(m->scales[first + i]);
        for (int r = 0; r < n_r; r++) {
            if (start < m->n_in) {
                int32_t dot = 0;
                for (int64_t k = start; k < m->n_in; k++) dot += (int32_t)w[k] * (int32_t)q[r * rows->q_stride + k];
                sums[i][r] += (float)dot * scales[r * rows->n_groups + n_whole];
            }
            sums[i][r] *= scale;
        }
    }
}

/* Of one int4 weight row: scale times row's scale for every group and row, and what the zeros amount to. */
INLINE void int4_factors(const uint16_t *scales, const uint16_t *zeros, int64_t n_groups, const Rows *rows, int64_t r0,
                         int n_r, float *factors, float *offsets) {
    const float *row_scales = rows->scales + r0 * n_groups, *row_sums = rows->sums + r0 * n_groups;
    int64_t g = 0;
    for (int r = 0; r < n_r; r++) offsets[r] = 0;
#if HAS_VECTORS
    VF totals[MAX_TILE_ROWS];
    for (int r = 0; r < n_r; r++) totals[r] = vf_zero();
    for (; g + LANES <= n_groups; g += LANES) {
        const VF scale = vf_load_bf16(scales + g);
        const VF shift = vf_fma(scale, vf_fill(-8.0f), vf_load_bf16(zeros + g));
        for (int r = 0; r < n_r; r++) {
            const int64_t place = r * n_groups + g;
            vf_store(factors + place, vf_multiply(scale, vf_load(row_scales + place)));
            totals[r] = vf_fma(shift, vf_load(row_sums + place), totals[r]);
        }
    }
    for (int r = 0; r < n_r; r++) offsets[r] = vf_sum(totals[r]);
#endif
    for (; g < n_groups; g++) {
        const float scale = from_bf16(scales[g]), shift = from_bf16(zeros[g]) - 8 * scale;
        for (int r = 0; r < n_r; r++) {
            factors[r * n_groups + g] = scale * row_scales[r * n_groups + g];
            offsets[r] += shift * row_sums[r * n_groups + g];
        }
    }
}

/* A byte holds a column of a row's first half (low) and of its second half (high). */
INLINE void tile_int4(const Matrix *m, int64_t first, const Rows *rows, int64_t r0, int n_w, int n_r, float *factors,
                      Sums sums) {
    const uint8_t *base = (const uint8_t *)m->data + first * m->row_bytes;
    const int8_t *q = rows->q8 + r0 * rows->q_stride;
    const int64_t n_groups = rows->n_groups, half = n_groups / 2;
    float offsets[MAX_TILE_WEIGHTS][MAX_TILE_ROWS];
    for (int i = 0; i < n_w; i++)
        int4_factors(m->scales + (first + i) * n_groups, m->zeros + (first + i) * n_groups, n_groups, rows, r0, n_r,
                     factors + i * MAX_TILE_ROWS * n_groups, offsets[i]);
#if HAS_VECTORS
    const int64_t ahead = fetch_ahead(m, n_w);
    Totals total;
    clear(total, n_w, n_r);
    for (int64_t g = 0; g < half; g++) {
        for (int i = 0; i < n_w; i++) {
            const uint8_t *w = base + i * m->row_bytes + g * GROUP;
            VI low[MAX_TILE_ROWS], high[MAX_TILE_ROWS];
            __builtin_prefetch(w + ahead);
            for (int r = 0; r < n_r; r++) low[r] = high[r] = vi_zero();
            for (int b = 0; b < GROUP; b += 4 * LANES) {
                VI bytes = vi_load(w + b), first_half = vi_low4(bytes), second_half = vi_high4(bytes);
                for (int r = 0; r < n_r; r++) {
                    const int8_t *y = q + r * rows->q_stride + g * GROUP + b;
                    low[r] = vi_dot8(low[r], first_half, vi_load(y));
                    high[r] = vi_dot8(high[r], second_half, vi_load(y + half * GROUP));
                }
            }
            for (int r = 0; r < n_r; r++) {
                const float *products = factors + (i * MAX_TILE_ROWS + r) * n_groups + g;
                total[i][r] = vf_fma(vf_from_ints(low[r]), vf_fill(products[0]), total[i][r]);
                total[i][r] = vf_fma(vf_from_ints(high[r]), vf_fill(products[half]), total[i][r]);
            }
        }
    }
    add_lanes(total, n_w, n_r, sums);
    for (int i = 0; i < n_w; i++)
        for (int r = 0; r < n_r; r++) sums[i][r] += offsets[i][r];
#else
    for (int i = 0; i < n_w; i++)
        for (int r = 0; r < n_r; r++) {
            const float *products = factors + (i * MAX_TILE_ROWS + r) * n_groups;
            float total = 0;
            for (int64_t g = 0; g < half; g++) {
                const uint8_t *w = base + i * m->row_bytes + g * GROUP;
                const int8_t *y = q + r * rows->q_stride + g * GROUP;
                int32_t low = 0, high = 0;
#pragma omp simd reduction(+ : low, high)
                for (int b = 0; b < GROUP; b++) {
                    low += (int32_t)(w[b] & 15) * (int32_t)y[b];
                    high += (int32_t)(w[b] >> 4) * (int32_t)y[b + half * GROUP];
                }
                total += (float)low * products[g] + (float)high * products[half + g];
            }
            sums[i][r] = total + offsets[i][r];
        }
#endif
}

INLINE void tile_any(const Matrix *m, int64_t first, const Rows *rows, int64_t r0, int n_w, int n_r, float *factors,
                     Sums sums) {
    switch (m->kind) {
    case FLOAT32: tile_float(m, first, rows, r0, n_w, n_r, 0, sums); break;
    case BFLOAT16: tile_float(m, first, rows, r0, n_w, n_r, 1, sums); break;
    case INT8: tile_int8(m, first, rows, r0, n_w, n_r, sums); break;
    default: tile_int4(m, first, rows, r0, n_w, n_r, factors, sums);
    }
}

/* Weight rows and rows of a tile: as many sums as there are registers for. */
static void tile(const Matrix *m, int64_t first, const Rows *rows, int64_t r0, int n_w, int n_r, float *factors,
                 Sums sums) {
    switch (n_w * 16 + n_r) {
    case 4 * 16 + 1: tile_any(m, first, rows, r0, 4, 1, factors, sums); break;
    case 4 * 16 + 2: tile_any(m, first, rows, r0, 4, 2, factors, sums); break;
    case 4 * 16 + 4: tile_any(m, first, rows, r0, 4, 4, factors, sums); break;
    case 2 * 16 + 8: tile_any(m, first, rows, r0, 2, 8, factors, sums); break;
    case 1 * 16 + 1: tile_any(m, first, rows, r0, 1, 1, factors, sums); break;
    case 1 * 16 + 2: tile_any(m, first, rows, r0, 1, 2, factors, sums); break;
    case 1 * 16 + 4: tile_any(m, first, rows, r0, 1, 4, factors, sums); break;
    default: tile_any(m, first, rows, r0, 1, 8, factors, sums);
    }
}

/* Weight rows first ... last - 1 times all rows; into out[r][o], or added to it. */
static void multiply(const Matrix *m, int64_t first, int64_t last, const Rows *rows, int64_t n_rows, float *factors,
                     float *out, int64_t out_stride, int add) {
    Sums sums;
    /* As many weight rows as stay in the first level cache while all rows pass over them. */
    for (int64_t o = first; o < last;) {
        const int64_t left = last - o;
        const int64_t n_band = left >= 4 ? 4 : 1;
        for (int64_t r = 0; r < n_rows;) {
            const int64_t rest = n_rows - r;
            const int n_r = rest >= 8 ? 8 : rest >= 4 ? 4 : rest >= 2 ? 2 : 1;
            const int64_t n_w = n_band == 4 ? (n_r == 8 ? 2 : 4) : 1;
            for (int64_t i = 0; i < n_band; i += n_w) {
                tile(m, o + i, rows, r, (int)n_w, n_r, factors, sums);
                for (int64_t a = 0; a < n_w; a++)
                    for (int64_t b = 0; b < n_r; b++) {
                        float *place = out + (r + b) * out_stride + o + i + a;
                        *place = add ? *place + sums[a][b] : sums[a][b];
                    }
            }
            r += n_r;
        }
        o += n_band;
    }
}

/* ---- the parts of a block ---- */

static void rms_norm(const float *x, const float *weight, int64_t n, float eps, float *out) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < n; k++) sum += x[k] * x[k];
    const float factor = 1.0f / sqrtf(sum / (float)n + eps);
#pragma omp simd
    for (int64_t k = 0; k < n; k++) out[k] = x[k] * factor * weight[k];
}

static void rotate(float *head, const float *table, int64_t head_dim) {
#pragma omp simd
    for (int64_t k = 0; k < head_dim / 2; k++) {
        const float a = head[2 * k], b = head[2 * k + 1], cosine = table[2 * k], sine = table[2 * k + 1];
        head[2 * k] = a * cosine - b * sine;
        head[2 * k + 1] = a * sine + b * cosine;
    }
}

INLINE float dot(const float *a, const float *b, int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

INLINE void load_cached(const void *from, float *x, int64_t n, int is_bf16) {
    if (is_bf16) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) x[i] = from_bf16(((const uint16_t *)from)[i]);
    } else {
        memcpy(x, from, (size_t)n * sizeof(float));
    }
}

static void store_cached(const float *x, void *to, int64_t n, int is_bf16) {
    if (is_bf16)
        for (int64_t i = 0; i < n; i++) ((uint16_t *)to)[i] = to_bf16(x[i]);
    else
        memcpy(to, x, (size_t)n * sizeof(float));
}

/* One new position of one key/value head: writes its key and value, and attends with the heads that share it.
 * scores: [heads that share][n_positions]; wide: [head_dim]. */
INLINE void attend(const Model *model, char *keys, char *values, int64_t n_positions, int64_t position,
                   int64_t kv_head, float *qkv, float *scores, float *wide, float *out, int is_bf16) {
    const int64_t head_dim = model->head_dim, group = model->n_heads / model->n_kv_heads;
    const int64_t bytes = head_dim * (is_bf16 ? 2 : 4);
    const float *table = model->table + position * head_dim;
    float *queries = qkv + kv_head * group * head_dim, *y = out + kv_head * group * head_dim;
    float *key = qkv + (model->n_heads + kv_head) * head_dim;
    const float *value = qkv + (model->n_heads + model->n_kv_heads + kv_head) * head_dim;
    const float shrink = 1.0f / sqrtf((float)head_dim);
    rotate(key, table, head_dim);
    store_cached(key, keys + position * bytes, head_dim, is_bf16);
    store_cached(value, values + position * bytes, head_dim, is_bf16);
    for (int64_t h = 0; h < group; h++) rotate(queries + h * head_dim, table, head_dim);
    for (int64_t j = 0; j <= position; j++) {
        load_cached(keys + j * bytes, wide, head_dim, is_bf16);
        for (int64_t h = 0; h < group; h++)
            scores[h * n_positions + j] = shrink * dot(queries + h * head_dim, wide, head_dim);
    }
    for (int64_t h = 0; h < group; h++) {
        float *shares = scores + h * n_positions;
        float largest = shares[0], total = 0;
#pragma omp simd reduction(max : largest)
        for (int64_t j = 0; j <= position; j++) largest = shares[j] > largest ? shares[j] : largest;
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j <= position; j++) {
            shares[j] = fast_exp(shares[j] - largest);
            total += shares[j];
        }
        total = 1.0f / total;
#pragma omp simd
        for (int64_t j = 0; j <= position; j++) shares[j] *= total;
    }
    memset(y, 0, (size_t)(group * head_dim) * sizeof(float));
    for (int64_t j = 0; j <= position; j++) {
        load_cached(values + j * bytes, wide, head_dim, is_bf16);
        for (int64_t h = 0; h < group; h++) {
            const float factor = scores[h * n_positions + j];
            float *sum = y + h * head_dim;
#pragma omp simd
            for (int64_t i = 0; i < head_dim; i++) sum[i] += factor * wide[i];
        }
    }
}

/* ---- memory ---- */

typedef struct {
    float *qkv, *attended, *act, *up; /* shared, [n_rows][...] */
    char *own;                        /* of one thread */
    float *normed, *scores, *wide, *factors;
    Rows rows;
} Scratch;

static int64_t widest(const Model *m) {
    const int64_t n_q = m->n_heads * m->head_dim;
    int64_t n = m->dim > m->n_inner ? m->dim : m->n_inner;
    return round_up(n > n_q ? n : n_q, 2 * GROUP);
}

static int64_t shared_floats(const Model *m, int64_t n_rows) {
    const int64_t n_q = m->n_heads * m->head_dim, n_qkv = n_q + 2 * m->n_kv_heads * m->head_dim;
    return n_rows * (n_qkv + n_q + 2 * m->n_inner);
}

static int64_t own_floats(const Model *m, int64_t n_rows, int64_t n_positions) {
    const int64_t wide = widest(m), n_groups = wide / GROUP;
    return round_up(n_rows * (m->dim + wide + 2 * n_groups) + m->n_heads / m->n_kv_heads * n_positions +
                        m->head_dim + MAX_TILE_WEIGHTS * MAX_TILE_ROWS * n_groups,
                    16);
}

int64_t csm_max_rows(void) { return MAX_ROWS; }

/* Bytes that csm_pass needs, for caches of n_positions. */
int64_t csm_scratch_bytes(const Model *m, int64_t n_rows, int64_t n_positions, int64_t n_threads) {
    return 4 * (round_up(shared_floats(m, n_rows), 16) + n_threads * own_floats(m, n_rows, n_positions));
}

static Scratch lay_out(const Model *m, float *memory, int64_t n_rows, int64_t n_positions, int64_t thread) {
    const int64_t n_q = m->n_heads * m->head_dim, n_qkv = n_q + 2 * m->n_kv_heads * m->head_dim;
    const int64_t wide = widest(m), n_groups = wide / GROUP;
    Scratch s;
    s.qkv = memory;
    s.attended = s.qkv + n_rows * n_qkv;
    s.act = s.attended + n_rows * n_q;
    s.up = s.act + n_rows * m->n_inner;
    float *own = memory + round_up(shared_floats(m, n_rows), 16) + thread * own_floats(m, n_rows, n_positions);
    s.normed = own;
    /* Either kind of integers fits into the floats' room. */
    s.rows.q16 = (int16_t *)(own + n_rows * m->dim);
    s.rows.q8 = (int8_t *)s.rows.q16;
    s.rows.scales = own + n_rows * (m->dim + wide);
    s.rows.sums = s.rows.scales + n_rows * n_groups;
    s.scores = s.rows.sums + n_rows * n_groups;
    s.wide = s.scores + m->n_heads / m->n_kv_heads * n_positions;
    s.factors = s.wide + m->head_dim;
    return s;
}

static void share(int64_t n, int64_t thread, int64_t n_threads, int64_t *first, int64_t *last) {
    /* In steps of 16, so that no two threads write to one cache line. */
    const int64_t blocks = (n + 15) / 16;
    *first = blocks * thread / n_threads * 16;
    *last = blocks * (thread + 1) / n_threads * 16;
    if (*first > n) *first = n;
    if (*last > n) *last = n;
}

static void set_rows(Rows *rows, const Matrix *m, const float *x, int64_t x_stride, int64_t n_rows) {
    rows->x = x;
    rows->x_stride = x_stride;
    if (m->kind >= INT8) quantize_rows(rows, n_rows, m->n_in, m->kind);
}

/* ---- the pass ---- */

/* Returns 0, or -1 for a row or position that is not there. x [n_rows][dim] are embeddings, and hold the stream afterwards; out gets the hidden states behind the last
 * norm. Row r is at positions[r] of row cache_rows[r] of the cache, whose positions before hold keys and
 * values; rows of one cache row are in the order of their positions.
 */
int64_t csm_pass(const Model *model, const Cache *cache, int64_t n_positions, int64_t n_rows,
                 const int64_t *cache_rows, const int64_t *positions, float *x, float *out, void *memory,
                 int64_t n_threads) {
    const int64_t dim = model->dim, head_dim = model->head_dim, n_inner = model->n_inner;
    const int64_t n_q = model->n_heads * head_dim, n_kv = model->n_kv_heads * head_dim, n_qkv = n_q + 2 * n_kv;
    const int is_bf16 = cache->kind == BFLOAT16;
    const int64_t element = is_bf16 ? 2 : 4;
    const float eps = (float)model->eps;
    if (n_rows > MAX_ROWS) return -1;
    for (int64_t r = 0; r < n_rows; r++) {
        if (cache_rows[r] < 0 || cache_rows[r] >= cache->n_rows) return -1;
        if (positions[r] < 0 || positions[r] >= n_positions) return -1;
    }
#pragma omp parallel num_threads((int)n_threads)
    {
        const int64_t thread = omp_get_thread_num(), count = omp_get_num_threads();
        int64_t first, last;
        Scratch s = lay_out(model, memory, n_rows, n_positions, thread);
        for (int64_t l = 0; l < model->n_layers; l++) {
            const Layer *layer = &model->layers[l];
            char *keys = (char *)cache->data + l * cache->layer_stride * element;
            char *values = keys + cache->side_stride * element;

            for (int64_t r = 0; r < n_rows; r++) rms_norm(x + r * dim, layer->attn_norm, dim, eps, s.normed + r * dim);
            set_rows(&s.rows, &layer->wqkv, s.normed, dim, n_rows);
            share(n_qkv, thread, count, &first, &last);
            multiply(&layer->wqkv, first, last, &s.rows, n_rows, s.factors, s.qkv, n_qkv, 0);
#pragma omp barrier
            /* All rows of a head are one thread's, so a row finds what the rows before it have written. */
            for (int64_t task = thread; task < model->n_kv_heads; task += count)
                for (int64_t r = 0; r < n_rows; r++) {
                    const int64_t place = (cache_rows[r] * cache->row_stride + task * cache->head_stride) * element;
                    float *qkv = s.qkv + r * n_qkv, *y = s.attended + r * n_q;
                    /* A constant, so that there is a version for each kind of cache. */
                    if (is_bf16)
                        attend(model, keys + place, values + place, n_positions, positions[r], task, qkv, s.scores,
                               s.wide, y, 1);
                    else
                        attend(model, keys + place, values + place, n_positions, positions[r], task, qkv, s.scores,
                               s.wide, y, 0);
                }
#pragma omp barrier
            set_rows(&s.rows, &layer->wo, s.attended, n_q, n_rows);
            share(dim, thread, count, &first, &last);
            multiply(&layer->wo, first, last, &s.rows, n_rows, s.factors, x, dim, 1);
#pragma omp barrier
            for (int64_t r = 0; r < n_rows; r++) rms_norm(x + r * dim, layer->mlp_norm, dim, eps, s.normed + r * dim);
            set_rows(&s.rows, &layer->w_gate_up, s.normed, dim, n_rows);
            share(n_inner, thread, count, &first, &last);
            multiply(&layer->w_gate_up, first, last, &s.rows, n_rows, s.factors, s.act, n_inner, 0);
            multiply(&layer->w_gate_up, n_inner + first, n_inner + last, &s.rows, n_rows, s.factors, s.up - n_inner,
                     n_inner, 0);
            for (int64_t r = 0; r < n_rows; r++) {
                float *act = s.act + r * n_inner;
                const float *up = s.up + r * n_inner;
#pragma omp simd
                for (int64_t k = first; k < last; k++) act[k] = act[k] / (1.0f + fast_exp(-act[k])) * up[k];
            }
#pragma omp barrier
            set_rows(&s.rows, &layer->w_down, s.act, n_inner, n_rows);
            share(dim, thread, count, &first, &last);
            multiply(&layer->w_down, first, last, &s.rows, n_rows, s.factors, x, dim, 1);
#pragma omp barrier
        }
        for (int64_t r = thread; r < n_rows; r += count) rms_norm(x + r * dim, model->norm, dim, eps, out + r * dim);
    }
    return 0;
}

/* Bytes that csm_multiply needs. */
int64_t csm_multiply_bytes(const Matrix *m, int64_t n_rows, int64_t n_threads) {
    const int64_t wide = round_up(m->n_in, 2 * GROUP), n_groups = wide / GROUP;
    return 4 * (n_rows * (wide + 2 * n_groups) + n_threads * MAX_TILE_WEIGHTS * MAX_TILE_ROWS * n_groups);
}

/* out [n_rows][n_out] = x [n_rows][n_in] times the matrix's transpose. */
void csm_multiply(const Matrix *m, const float *x, int64_t n_rows, float *out, void *memory, int64_t n_threads) {
    const int64_t wide = round_up(m->n_in, 2 * GROUP), n_groups = wide / GROUP;
    Rows rows;
    float *floats = memory;
    rows.q16 = memory;
    rows.q8 = memory;
    rows.scales = floats + n_rows * wide;
    rows.sums = rows.scales + n_rows * n_groups;
    set_rows(&rows, m, x, m->n_in, n_rows);
#pragma omp parallel num_threads((int)n_threads)
    {
        const int64_t thread = omp_get_thread_num(), count = omp_get_num_threads();
        int64_t first, last;
        float *factors = rows.sums + n_rows * n_groups + thread * MAX_TILE_WEIGHTS * MAX_TILE_ROWS * n_groups;
        share(m->n_out, thread, count, &first, &last);
        multiply(m, first, last, &rows, n_rows, factors, out, m->n_out, 0);
    }
}
