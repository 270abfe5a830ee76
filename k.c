
#include <math.h>
typedef float real;
void many(long tensors, const long *sizes, void ***arrays, const double *numbers){
  for(long t=0;t<tensors;t++){ void **a=arrays[t]; long n=sizes[t];
  real *restrict a0=a[0],*restrict a1=a[1],*restrict a2=a[2],*restrict a3=a[3];
  real v0=numbers[0],v1=numbers[1],v2=numbers[2],v3=numbers[3],v4=numbers[4],v5=numbers[5],v6=numbers[6],v7=numbers[7];
#pragma omp simd
  for(long i=0;i<n;i++){ real g=a1[i]; real m=v0*a2[i]+v1*g; real s=v2*a3[i]+v3*(g*g);
    a0[i]=v4*a0[i]-v5*m/(sqrtf(v6*s)+v7); a2[i]=m;a3[i]=s;}
  }}
void mine(long tensors, const long *sizes, void ***arrays, const double *numbers){
  for(long t=0;t<tensors;t++){ void **a=arrays[t]; long n=sizes[t];
  real *restrict a0=a[0],*restrict a1=a[1],*restrict a2=a[2];
  real v0=numbers[0],v1=numbers[1],v2=numbers[2],v3=numbers[3],v4=numbers[4];
#pragma omp simd
  for(long i=0;i<n;i++){ real g=a1[i]; real m=v0*a2[i]+v1*g; real s=(real)((m > 0) - (m < 0));
    a0[i]=a0[i]-v4*(v2*s+v3*m); a2[i]=m;}
  }}
// finite check: x*0 sums to 0 unless nonfinite
int check(long tensors, const long *sizes, void ***arrays, int rev){
  for(long k=0;k<tensors;k++){ long t = rev? tensors-1-k : k; const real *g=arrays[t][1]; long n=sizes[t];
   real s=0;
#pragma omp simd reduction(+:s)
   for(long i=0;i<n;i++) s+=g[i]*(real)0;
   if(!(s==0)) return 1;}
  return 0;}
#include <stdint.h>
int check2(long tensors, const long *sizes, void ***arrays, int rev){
  for(long k=0;k<tensors;k++){ long t = rev? tensors-1-k : k; const uint32_t *g=arrays[t][1]; long n=sizes[t];
   uint32_t top=0;
   const long B=4096;
   for(long b=0;b<n;b+=B){ long e=b+B<n?b+B:n;
#pragma omp simd reduction(max:top)
   for(long i=b;i<e;i++) { uint32_t x = g[i]&0x7f800000u; top= x>top?x:top;} }
   if(top==0x7f800000u) return 1;}
  return 0;}
