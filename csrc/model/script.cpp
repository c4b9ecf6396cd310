#include "model/script.h"

#include "artifact/archive.h"
#include "model/loops.h"
#include "model/pickle.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/jit/frontend/error_report.h>
#include <torch/csrc/jit/operator_upgraders/upgraders_entry.h>
#include <torch/csrc/jit/serialization/import_source.h>
#include <torch/csrc/jit/serialization/unpickler.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace equistride {
namespace {

using c10::IValue;

constexpr int MAX_DEPTH = 100; // of values in values

/// What torch::jit::load does, in its order, but without the calls that it makes into the file's code on the way.
class Reader {
public:
    Reader(const Content &content, const std::string &name, Native native)
        : name_(name), native_(native), records_(std::make_shared<ContentReader>(content)),
          unit_(std::make_shared<torch::jit::CompilationUnit>()),
          importer_(
              unit_, &constants_, [this](const std::string &module) { return source(module); }, records_.version()) {}

    torch::jit::Module read() {
        torch::jit::populate_upgraders_graph_map();
        const IValue constants = unpickle("constants"), root = unpickle("data");
        refuse_unless(constants.isTuple(), "its constants are no tuple");
        refuse_unless(root.isObject() && root.toObjectRef().type()->is_module(), "it holds no module");
        check_code(*unit_, name_, native_);
        count_turns(*unit_);
        check(root, root.type(), 0);
        return torch::jit::Module(root.toObject());
    }

private:
    void refuse_unless(bool so, const std::string &what) const {
        TORCH_CHECK_VALUE(so, name_, " is not a model that may run: ", what,
                          "; expected a module of tensors, numbers and TorchScript; do not trust this file, or export "
                          "the model again");
    }

    std::shared_ptr<torch::jit::Source> source(const std::string &module) {
        std::string path = "code/" + module + ".py";
        std::replace(path.begin() + 5, path.end() - 3, '.', '/');
        if (!records_.hasRecord(path))
            return nullptr;
        const auto [data, size] = records_.getRecord(path);
        std::string text(static_cast<const char *>(data.get()), size);
        check_source(text, name_);
        return std::make_shared<torch::jit::Source>(text, path, 1);
    }

    IValue unpickle(const std::string &archive) {
        const auto [data, size] = records_.getRecord(archive + ".pkl");
        const char *at = static_cast<const char *>(data.get()), *const end = at + size;
        refuse_unless(holds_what_it_names({at, size}), "its data name more values than they hold");
        const auto read = [&at, end](char *to, std::size_t wanted) {
            const std::size_t some = std::min(wanted, static_cast<std::size_t>(end - at));
            std::memcpy(to, at, some);
            at += some;
            return some;
        };
        const auto resolve = [this](const c10::QualifiedName &type) {
            c10::TypePtr found;
            try { // a class, or the type of a list or a dictionary
                found = importer_.loadType(type);
            } catch (const torch::jit::ErrorReport &) {
                refuse_unless(false, "its data name " + type.qualifiedName());
            }
            check_type(*found, *unit_, name_, native_);
            return c10::StrongTypePtr(unit_, found);
        };
        const auto make = [this](const c10::StrongTypePtr &type, const IValue &state) {
            const auto cls = type.type_->cast<c10::ClassType>();
            if (allows(native_, *type.type_)) { // ours, which reads the state as an artifact
                auto object = c10::ivalue::Object::create(type, cls->numAttributes());
                cls->getMethod("__setstate__")({object, state});
                return object;
            }
            refuse_unless(cls && cls->compilation_unit() == unit_, "its data hold a " + type.type_->annotation_str());
            refuse_unless(!cls->findMethod("__setstate__") && !cls->findMethod("__getstate__"),
                          "its code has " + cls->annotation_str() +
                              ".__setstate__, which would run as the file is read");
            const auto attributes = state.toGenericDict();
            auto object = c10::ivalue::Object::create(type, cls->numAttributes());
            for (std::size_t k = 0; k < cls->numAttributes(); k++)
                object->setSlot(k, attributes.at(cls->getAttributeName(k)));
            return object;
        };
        const auto tensor = [this, &archive](const std::string &record) {
            auto [content, bytes] = records_.getRecord(archive + "/" + record);
            sizes_[content.get()] = bytes;
            return std::move(content);
        };
        torch::jit::Unpickler unpickler(read, resolve, make, tensor, at::Device(at::kCPU));
        unpickler.set_version(records_.version());
        IValue found = unpickler.parse_ivalue();
        if (archive == "constants" && found.isTuple()) // before code that may name them is compiled
            for (const IValue &constant : found.toTupleRef().elements()) {
                check(constant, c10::TensorType::get(), 0);
                constants_.push_back(constant);
            }
        return found;
    }

    /// Tensors lie within their records, and values are what the code takes them for: torch checks neither.
    void check(const IValue &value, const c10::TypePtr &type, int depth) {
        refuse_unless(depth < MAX_DEPTH, "its data are nested too deep");
        const auto next = [&](const IValue &inner, const c10::TypePtr &expected) { check(inner, expected, depth + 1); };
        if (const auto optional = type->cast<c10::OptionalType>(); optional && !value.isNone())
            return next(value, optional->getElementType());
        const c10::TypePtr found = value.type();
        refuse_unless(found->isSubtypeOf(*type), "a value of its data is a " + found->annotation_str() +
                                                     " where its code has a " + type->annotation_str());
        if (value.isTensor())
            return check_tensor(value.toTensor());
        // What is in them is held against what they are, so that once is enough, however often they are named.
        const bool holds = value.isList() || value.isTuple() || value.isGenericDict();
        if (holds && !looked_at_.insert(value.internalToPointer()).second)
            return;
        if (value.isObject()) {
            const auto &object = value.toObjectRef();
            const auto cls = object.type();
            if (allows(native_, *cls))
                return;
            refuse_unless(cls->compilation_unit() == unit_, "its data hold a " + found->annotation_str());
            if (!looked_at_.insert(&object).second)
                return;
            for (std::size_t k = 0; k < cls->numAttributes(); k++)
                next(object.getSlot(k), cls->getAttribute(k));
        } else if (value.isList()) {
            for (const IValue &inner : value.toListRef())
                next(inner, found->castRaw<c10::ListType>()->getElementType());
        } else if (value.isTuple()) {
            const auto parts = found->containedTypes();
            for (std::size_t k = 0; k < parts.size(); k++)
                next(value.toTupleRef().elements()[k], parts[k]);
        } else if (value.isGenericDict()) {
            const auto &kind = found->expectRef<c10::DictType>();
            for (const auto &entry : value.toGenericDict()) {
                next(entry.key(), kind.getKeyType());
                next(entry.value(), kind.getValueType());
            }
        } else
            refuse_unless(value.isScalar() || value.isString() || value.isNone() || value.isDevice(),
                          "its data hold a " + found->annotation_str());
    }

    void check_tensor(const at::Tensor &tensor) const {
        refuse_unless(tensor.defined() && tensor.layout() == at::kStrided && tensor.device().is_cpu() &&
                          !tensor.is_quantized() && !at::isBitsType(tensor.scalar_type()),
                      "a tensor of its data is not one of numbers");
        const auto known = sizes_.find(tensor.storage().data());
        const std::size_t size = known == sizes_.end() ? 0 : known->second;
        __int128 last = tensor.storage_offset();
        bool empty = false, sane = last >= 0;
        for (std::int64_t k = 0; k < tensor.dim(); k++) {
            empty |= tensor.size(k) == 0;
            sane &= tensor.size(k) >= 0 && tensor.stride(k) >= 0;
            last += static_cast<__int128>(tensor.size(k) - 1) * tensor.stride(k);
        }
        refuse_unless(sane && tensor.storage().nbytes() <= size &&
                          (empty || (last + 1) * static_cast<__int128>(tensor.element_size()) <= size),
                      "a tensor of its data reaches beyond its record");
    }

    const std::string &name_;
    const Native native_;
    caffe2::serialize::PyTorchStreamReader records_;
    std::shared_ptr<torch::jit::CompilationUnit> unit_;
    std::vector<IValue> constants_;
    torch::jit::SourceImporter importer_;
    std::unordered_map<const void *, std::size_t> sizes_; ///< of records, by where they lie in memory
    std::unordered_set<const void *> looked_at_;          ///< objects and containers
};

} // namespace

torch::jit::Module read_script(const Content &content, const std::string &name, Native native) {
    const c10::InferenceMode no_inference(false);
    try {
        return Reader(content, name, native).read();
    } catch (const c10::ValueError &) {
        throw;
    } catch (const std::exception &error) {
        const auto *torch_error = dynamic_cast<const c10::Error *>(&error);
        C10_THROW_ERROR(ValueError, c10::str(name, " cannot be loaded by this torch (",
                                             torch_error ? torch_error->what_without_backtrace() : error.what(),
                                             "); export the model again with this torch or an older one"));
    }
}

} // namespace equistride
