# An addon for other machines than this one: see native/addon/old_glibc.cc.
set(OLD_GLIBC_WRAPPED
  pthread_create pthread_join pthread_detach pthread_once pthread_key_create __pthread_key_create pthread_key_delete
  pthread_getspecific pthread_setspecific pthread_mutex_trylock pthread_sigmask
  dlopen dlsym dlclose dlerror dladdr exp log pow
  stat lstat fstat stat64 lstat64 fstat64
  __libc_single_threaded arc4random pthread_cond_clockwait)
target_sources(sdar_node PRIVATE native/addon/old_glibc.cc)
list(TRANSFORM OLD_GLIBC_WRAPPED PREPEND "-Wl,--wrap=")
target_link_options(sdar_node PRIVATE ${OLD_GLIBC_WRAPPED} -static-libstdc++
  "-Wl,--version-script=${CMAKE_SOURCE_DIR}/native/addon/exports.map")
set_property(TARGET sdar_node APPEND PROPERTY LINK_DEPENDS "${CMAKE_SOURCE_DIR}/native/addon/exports.map")
